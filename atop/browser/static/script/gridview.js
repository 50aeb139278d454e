// How the table is drawn: headings, rows, cells, and what depends on the place.
const RIGHT = new Set(["int", "float", "decimal"]);
const WIDTHS = { str: 190, int: 90, float: 100, decimal: 100, bool: 70, date: 104, datetime: 150, time: 80, list: 200, dict: 200, file: 150 };

class GridView extends GridRows {
  rowHeight() {
    if (!this.height) {
      const row = this.body.firstElementChild;
      if (!row) return 30;
      this.height = row.getBoundingClientRect().height || 30;
    }
    return this.height;
  }

  drawHead() {
    const heads = [this.makeHandleHead(), ...this.columns.map((column, place) => this.makeHead(column, place))];
    this.head.replaceChildren(...heads);
    const group = this.table.querySelector("colgroup");
    group.replaceChildren(Atop.element("col"), ...this.columns.map(() => Atop.element("col")));
    this.applyWidths();
    this.table.setAttribute("aria-colcount", String(this.columns.length + 1));
  }

  applyWidths() {
    const cols = this.table.querySelectorAll("col");
    let sum = 84;
    cols[0].style.width = "84px";
    this.columns.forEach((column, place) => {
      const width = column.width || WIDTHS[column.kind] || 150;
      cols[place + 1].style.width = `${width}px`;
      sum += width;
    });
    this.table.style.width = `max(100%, ${sum}px)`;
  }

  makeHandleHead() {
    const sorted = this.index === null && !this.words;
    const button = Atop.element("button", { type: "button", class: "sort", title: "Order by number", click: () => this.sort(null, null) }, "Item");
    return Atop.element("th", { scope: "col", class: "handle", "aria-sort": sorted ? (this.reverse ? "descending" : "ascending") : null }, button);
  }

  makeHead(column, place) {
    const sorted = column.index !== null && column.index === this.index && !this.words;
    const title = column.index === null ? `${column.name}: no index yet; click to make one and order by it` : `Order by ${column.name}`;
    const button = Atop.element("button", { type: "button", class: "sort", title, dir: "auto", click: () => this.sort(column.index, column) }, column.name);
    button.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !event.altKey) return;
      event.preventDefault();
      if (event.shiftKey) this.moveColumn(place, place + step);
      else this.resize(column, (column.width || WIDTHS[column.kind] || 150) + 16 * step, true);
      this.head.children[Math.max(1, Math.min(this.columns.length, event.shiftKey ? place + step + 1 : place + 1))].querySelector("button").focus();
    });
    const grip = Atop.element("span", { class: "grip", "aria-hidden": "true" });
    grip.addEventListener("pointerdown", (event) => this.dragWidth(event, column, head));
    const head = Atop.element("th", { scope: "col", draggable: "true", class: RIGHT.has(column.kind) ? "number" : null, "aria-sort": sorted ? (this.reverse ? "descending" : "ascending") : null }, button, grip);
    head.addEventListener("dragstart", (event) => { this.dragged = place; event.dataTransfer.setData("text/plain", column.name); });
    head.addEventListener("dragover", (event) => { if (this.dragged !== undefined) event.preventDefault(); });
    head.addEventListener("drop", (event) => {
      if (this.dragged === undefined) return;
      event.preventDefault();
      this.moveColumn(this.dragged, place);
    });
    head.addEventListener("dragend", () => { this.dragged = undefined; });
    return head;
  }

  dragWidth(event, column, head) {
    event.preventDefault();
    const start = event.clientX;
    const width = head.getBoundingClientRect().width;
    const move = (moved) => this.resize(column, width + moved.clientX - start, false);
    const end = () => {
      document.removeEventListener("pointermove", move);
      this.keepLayout();
    };
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", end, { once: true });
  }

  resize(column, width, keep) {
    column.width = Math.round(Math.max(48, Math.min(1200, width)));
    this.applyWidths();
    if (keep) this.keepLayout();
  }

  moveColumn(from, to) {
    this.dragged = undefined;
    if (to < 0 || to >= this.columns.length || from === to) return;
    this.columns.splice(to, 0, ...this.columns.splice(from, 1));
    this.columnsChanged();
  }

  columnsChanged() {
    this.drawHead();
    this.keepLayout();
    this.replace([]);
    this.show({}).catch(Atop.tell);
  }

  keepLayout() {
    const columns = this.columns.map(({ name, width }) => ({ name, width: width || null }));
    Atop.request("PUT", `${this.path}/layout`, { columns, index: this.index, reverse: this.reverse }).catch(Atop.tell);
  }

  makeRow(row) {
    const element = Atop.element("tr", { "data-id": row.id });
    this.elements.set(row.id, element);
    this.fillRow(element, row, null);
    return element;
  }

  // Puts the cells of a row in place. `was` is what was shown before a change from elsewhere: what is new lights up.
  fillRow(element, row, was) {
    const label = this.labelOf(row);
    const box = Atop.element("input", { type: "checkbox", tabindex: "-1", "aria-label": `Select ${label}` });
    box.checked = this.selected.has(row.id);
    const link = Atop.element("a", { href: `${Atop.base}/items/${row.id}`, tabindex: "-1", "aria-label": `Open ${label}` }, "open");
    const handle = Atop.element("th", { scope: "row", class: "handle", tabindex: "-1" }, box, link);
    const cells = this.columns.map((column, place) => {
      const cell = row.cells[place];
      const made = this.makeCell(column, cell);
      if (was && JSON.stringify(was.cells[place]) !== JSON.stringify(cell)) made.classList.add("fresh");
      return made;
    });
    if (row.problem) cells.splice(0, cells.length, Atop.element("td", { colspan: String(this.columns.length), class: "problem", tabindex: "-1" }, row.problem));
    element.replaceChildren(handle, ...cells);
    element.classList.toggle("fixed", Boolean(row.fixed));
    element.setAttribute("aria-selected", String(this.selected.has(row.id)));
  }

  labelOf(row) {
    const place = this.columns.findIndex((column) => ["name", "title", "summary", "subject"].includes(column.name));
    return (place >= 0 && Atop.textOf(row.cells[place])) || `item ${row.id}`;
  }

  makeCell(column, cell) {
    const element = Atop.element("td", { tabindex: "-1", class: RIGHT.has(cell?.k || column.kind) ? "number" : null });
    if (cell === null || cell === undefined) element.classList.add("absent");
    else if (cell.k === "none") element.append(Atop.element("span", { class: "none", title: "None: no value" }, "–"));
    else if (cell.k === "ref" && !cell.gone) element.append(Atop.element("a", { href: `${Atop.base}/items/${cell.id}`, tabindex: "-1", dir: "auto" }, cell.t));
    else {
      element.textContent = Atop.textOf(cell).slice(0, 240);
      if (cell.k === "file") element.append(Atop.element("small", { class: "soft" }, ` ${Atop.size(cell.size)}`));
    }
    return element;
  }

  number() {
    const all = !this.before ? 0 : !this.after ? Math.max(0, this.total - this.rows.length) : Math.max(0, Math.min(this.first, this.total - this.rows.length));
    this.first = all;
    this.table.setAttribute("aria-rowcount", String(this.exact === false ? -1 : this.total + 1));
    this.rows.forEach((row, place) => this.elements.get(row.id).setAttribute("aria-rowindex", String(this.first + place + 2)));
  }

  // Draws what depends on the place, and loads what is missing around it.
  settle() {
    const height = this.rowHeight();
    const top = this.scroller.scrollTop / height;
    const seen = (this.scroller.clientHeight - this.head.offsetHeight) / height;
    if (this.after && top + seen > this.rows.length - EDGE) this.more(true);
    else if (this.before && top < EDGE) this.more(false);
    this.bar.draw(this.first + top, seen);
    const from = Math.floor(this.first + top) + 1;
    const to = Math.min(this.total, Math.round(this.first + top + seen));
    const about = this.rows.length < this.total && (this.before && this.after) ? "about " : "";
    const total = `${this.exact === false ? "about " : ""}${Atop.many(this.total, "item")}`;
    const filtered = this.words || Object.keys(this.part).length;
    this.root.querySelector(".place").textContent = this.total ? `${about}${Atop.count(from)} to ${Atop.count(Math.max(from, to))} of ${total}${filtered ? ", filtered" : ""}` : "";
    this.drawEmpty();
  }

  drawEmpty() {
    const box = this.root.querySelector(".grid-frame > .empty");
    box.hidden = this.rows.length > 0 || this.loading;
    if (box.hidden) return;
    const filtered = this.words || Object.keys(this.part).length;
    const clear = Atop.element("button", { type: "button", click: () => this.tools.clear() }, "Show all");
    const create = Atop.element("button", { type: "button", class: "main", click: () => this.tools.create() }, "Make an item");
    const file = Atop.element("button", { type: "button", click: Atop.chooseFiles }, "Import a file");
    box.replaceChildren(
      Atop.element("p", {}, filtered ? "Nothing matches." : "This pool is empty."),
      Atop.element("p", {}, filtered ? "Try fewer words, or another range." : "Make an item, or drop a file of contacts, events or mail on the page."),
      Atop.element("p", { class: "buttons" }, ...(filtered ? [clear] : [create, file])),
    );
  }

  // -- order

  async sort(index, column) {
    if (column && index === null) {
      const made = await this.tools.offerIndex(column);
      if (!made) return;
      index = made;
    }
    this.reverse = this.index === index && !this.words ? !this.reverse : false;
    if (this.index !== index) this.part = {};
    this.index = index;
    this.words = "";
    this.root.querySelector("#words").value = "";
    this.tools.drawFilter();
    this.drawHead();
    this.keepLayout();
    await this.show({}).catch(Atop.tell);
  }

  // What a row is ordered by.
  keyText(row) {
    const place = this.columns.findIndex((column) => column.index !== null && column.index === this.index);
    return (place >= 0 && Atop.textOf(row.cells[place])) || this.labelOf(row);
  }
}

// The text of a cell, as it is edited.
Atop.textOf = (cell) => {
  if (cell === null || cell === undefined) return "";
  if (typeof cell === "object") return cell.t || "";
  return String(cell);
};
