// The table of a pool. Only the rows around what is seen are loaded: they are real rows, scrolled by the browser itself,
// and exchanged at both ends. The bar beside them shows, and takes, the place in the whole pool.
const CHUNK = 60; // rows that are loaded at once
const KEPT = 240; // rows that are in the page at most
const EDGE = 20; // rows before the end of what is loaded at which more is loaded

const RIGHT = new Set(["int", "float", "decimal"]);
const WIDTHS = { str: 190, int: 90, float: 100, decimal: 100, bool: 70, date: 104, datetime: 150, time: 80, list: 200, dict: 200, file: 150 };

class Grid {
  constructor(root) {
    this.root = root;
    this.pool = root.dataset.pool;
    this.path = `/api/pools/${this.pool}`;
    this.scroller = root.querySelector(".grid-scroll");
    this.table = root.querySelector("table");
    this.body = root.querySelector("tbody");
    this.head = root.querySelector("thead tr");
    this.rows = [];
    this.elements = new Map(); // id -> tr
    this.selected = new Set();
    this.active = { id: null, column: 1 };
    this.part = {};
    this.words = "";
    this.first = 0; // the number of the first row that is loaded, about
    this.total = 0;
    this.turn = 0; // grows with each new order: answers of older ones are dropped
    this.bar = new ScrollBar(this);
    this.editor = new CellEditor(this);
    this.listen();
  }

  async begin() {
    this.meta = await Atop.request("GET", this.path);
    const layout = this.meta.layout || { columns: [], index: null, reverse: false };
    const known = new Map(this.meta.columns.map((column) => [column.name, column]));
    const names = layout.columns.length ? layout.columns : this.meta.shown.map((name) => ({ name }));
    this.columns = names.map(({ name, width }) => ({ kind: "str", index: null, ...known.get(name), name, width }));
    const indexes = this.meta.indexes.filter((index) => index.ready && !index.words);
    const wanted = indexes.find((index) => index.name === layout.index);
    const usual = this.columns.map((column) => column.index).find((index) => index);
    this.index = wanted ? wanted.name : this.meta.layout ? null : usual || null;
    this.reverse = Boolean(layout.reverse);
    this.drawHead();
    await this.show({});
  }

  // -- what is asked for

  query(extra) {
    const query = new URLSearchParams(this.order());
    for (const column of this.columns) query.append("columns", column.name);
    for (const [name, value] of Object.entries(extra)) query.set(name, value);
    return query;
  }

  order() {
    if (this.words) return { q: this.words };
    const order = { ...this.part };
    if (this.index !== null) order.index = this.index;
    if (this.reverse) order.reverse = "1";
    return order;
  }

  // Shows another part or order of the pool, from a place: {}, {at}, {start}.
  async show(place, { counted = true } = {}) {
    const turn = ++this.turn;
    this.loading = true;
    try {
      const found = this.words
        ? await Atop.request("GET", `${this.path}/search?${this.query({})}`)
        : await Atop.request("GET", `${this.path}/rows?${this.query({ size: CHUNK, ...place, ...(counted ? { count: 1 } : {}) })}`);
      if (turn !== this.turn) return;
      this.take(found);
      const focused = this.body.contains(document.activeElement);
      this.replace(found.rows);
      this.scroller.scrollTop = 0;
      if (!this.elements.has(this.active.id)) this.active.id = this.rows.length ? this.rows[0].id : null;
      this.markActive(focused, false);
    } finally {
      if (turn === this.turn) this.loading = false;
    }
    this.settle();
  }

  // What an answer says besides its rows.
  take(found) {
    if (this.words) {
      this.total = found.rows.length;
      this.exact = !found.more;
      this.before = this.after = false;
      this.first = 0;
      return;
    }
    if (found.total !== undefined) { this.total = found.total; this.exact = found.exact; }
    else if (!Object.keys(this.part).length) this.total = found.size;
    this.before = found.before;
    this.after = found.after;
    this.first = Math.round(found.position * this.total);
  }

  replace(rows) {
    this.rows = rows;
    this.elements.clear();
    const made = rows.map((row) => this.makeRow(row));
    this.body.replaceChildren(...made);
    this.number();
  }

  async more(down) {
    if (this.loading || !(down ? this.after : this.before) || !this.rows.length) return;
    const turn = this.turn;
    this.loading = true;
    const edge = down ? this.rows[this.rows.length - 1] : this.rows[0];
    try {
      const place = down ? { after: edge.key } : { before: edge.key };
      const found = await Atop.request("GET", `${this.path}/rows?${this.query({ size: CHUNK, ...place })}`);
      if (turn !== this.turn) return;
      const rows = found.rows.filter((row) => !this.elements.has(row.id));
      const made = rows.map((row) => this.makeRow(row));
      if (down) {
        this.rows.push(...rows);
        this.body.append(...made);
        this.after = found.after;
        this.trim(this.rows.length - KEPT, true);
      } else {
        this.rows.unshift(...rows);
        this.body.prepend(...made);
        this.before = found.before;
        this.first -= rows.length;
        this.scroller.scrollTop += rows.length * this.rowHeight();
        this.trim(this.rows.length - KEPT, false);
      }
      this.number();
    } catch (error) {
      if (error.status) Atop.tell(error);
    } finally {
      if (turn === this.turn) this.loading = false;
    }
    requestAnimationFrame(() => this.settle());
  }

  // Takes rows away at the end that is far from what is seen.
  trim(count, top) {
    if (count <= 0) return;
    const focused = this.body.contains(document.activeElement);
    const gone = top ? this.rows.splice(0, count) : this.rows.splice(-count, count);
    for (const row of gone) {
      this.elements.get(row.id).remove();
      this.elements.delete(row.id);
    }
    if (top) {
      this.before = true;
      this.first += count;
      this.scroller.scrollTop -= count * this.rowHeight();
    } else this.after = true;
    if (focused && !this.elements.has(this.active.id)) { // scrolled away: the keyboard goes on from what is seen
      this.active.id = this.rows[Math.max(0, Math.min(this.rows.length - 1, Math.ceil(this.scroller.scrollTop / this.rowHeight())))].id;
      this.markActive(true, false);
    }
  }

  // Reads what is shown again, after a change from anywhere, without losing the place, the selection or an edit.
  async reload(remote) {
    if (this.loading) { this.again = true; return; }
    const turn = this.turn;
    this.loading = true;
    try {
      const anchor = this.rows[Math.floor(this.scroller.scrollTop / this.rowHeight())];
      const offset = anchor ? this.scroller.scrollTop - this.rows.indexOf(anchor) * this.rowHeight() : 0;
      const atTop = !this.before && this.scroller.scrollTop < 4;
      const place = this.before && this.rows.length ? { near: this.rows[0].key } : {};
      const size = Math.min(500, Math.max(CHUNK, this.rows.length + (this.before ? 0 : 10)));
      const found = this.words
        ? await Atop.request("GET", `${this.path}/search?${this.query({})}`)
        : await Atop.request("GET", `${this.path}/rows?${this.query({ size, ...place, ...(this.exact && this.total <= 20000 ? { count: 1 } : {}) })}`);
      if (turn !== this.turn) return;
      this.take(found);
      this.merge(found.rows, remote);
      const now = anchor ? this.rows.findIndex((row) => row.id === anchor.id) : -1;
      if (!atTop && now >= 0) this.scroller.scrollTop = now * this.rowHeight() + offset;
    } catch (error) {
      if (error.status) Atop.tell(error);
    } finally {
      if (turn === this.turn) this.loading = false;
    }
    this.settle();
    if (this.again) { this.again = false; this.reload(remote); }
  }

  merge(rows, remote) {
    const focused = this.body.contains(document.activeElement);
    const old = new Map(this.rows.map((row) => [row.id, row]));
    this.rows = rows;
    const kept = new Set(rows.map((row) => row.id));
    for (const [id, element] of this.elements) if (!kept.has(id)) { element.remove(); this.elements.delete(id); }
    let next = this.body.firstElementChild;
    for (const row of rows) {
      let element = this.elements.get(row.id);
      if (!element) element = this.makeRow(row);
      else if (JSON.stringify(old.get(row.id)) !== JSON.stringify(row)) this.fillRow(element, row, remote ? old.get(row.id) : null);
      if (element === next) next = next.nextElementSibling;
      else this.body.insertBefore(element, next);
    }
    for (const id of this.selected) if (!kept.has(id) && old.has(id) && !this.before && !this.after) this.selected.delete(id);
    this.number();
    this.editor.follow();
    if (this.active.id === null && rows.length) this.active.id = rows[0].id;
    this.markActive(focused && !this.editor.open);
    this.drawSelection();
  }

  // -- drawing

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

  // -- the active cell

  cellAt(id, column) {
    return this.elements.get(id)?.children[column] || null;
  }

  // Makes the active cell the one that Tab comes to; with `focus` it gets the keyboard, and is scrolled into view.
  markActive(focus, reveal = true) {
    this.body.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
    const cell = this.cellAt(this.active.id, Math.min(this.active.column, this.columns.length)) || this.body.querySelector("td, th");
    if (!cell) return;
    cell.setAttribute("tabindex", "0");
    if (focus) cell.focus({ preventScroll: true });
    if (focus && reveal) this.reveal(cell);
  }

  reveal(cell) {
    const head = this.head.offsetHeight;
    const row = cell.parentElement;
    const top = row.offsetTop - head;
    const view = this.scroller;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (row.offsetTop + row.offsetHeight > view.scrollTop + view.clientHeight) view.scrollTop = row.offsetTop + row.offsetHeight - view.clientHeight;
    const left = this.head.firstElementChild.offsetWidth;
    if (cell.offsetLeft - left < view.scrollLeft) view.scrollLeft = cell.offsetLeft - left;
    else if (cell.offsetLeft + cell.offsetWidth > view.scrollLeft + view.clientWidth) view.scrollLeft = cell.offsetLeft + cell.offsetWidth - view.clientWidth;
  }

  // Moves the active cell. Rows that are not there yet are waited for.
  async go(rows, columns) {
    this.active.column = Math.max(0, Math.min(this.columns.length, this.active.column + columns));
    let place = this.rows.findIndex((row) => row.id === this.active.id);
    if (place < 0) place = 0;
    const wanted = place + rows;
    if (wanted >= this.rows.length && this.after && !this.loading) await this.more(true);
    if (wanted < 0 && this.before && !this.loading) await this.more(false);
    place = this.rows.findIndex((row) => row.id === this.active.id);
    const row = this.rows[Math.max(0, Math.min(this.rows.length - 1, place + rows))];
    if (row) this.active.id = row.id;
    this.markActive(true);
  }

  async goEnd(last) {
    if (last ? this.after : this.before) await this.show(last ? { at: 1 } : {});
    if (last) this.scroller.scrollTop = this.scroller.scrollHeight;
    const row = last ? this.rows[this.rows.length - 1] : this.rows[0];
    if (row) this.active.id = row.id;
    this.markActive(true);
  }

  // -- selection

  select(id, on) {
    if (on) this.selected.add(id);
    else this.selected.delete(id);
    this.lastSelected = id;
    this.drawSelection();
  }

  selectTo(id) {
    const from = this.rows.findIndex((row) => row.id === (this.lastSelected ?? id));
    const to = this.rows.findIndex((row) => row.id === id);
    for (let place = Math.max(0, Math.min(from, to)); place <= Math.max(from, to); place += 1) this.selected.add(this.rows[place].id);
    this.drawSelection();
  }

  drawSelection() {
    for (const [id, element] of this.elements) {
      const on = this.selected.has(id);
      element.setAttribute("aria-selected", String(on));
      element.querySelector("input").checked = on;
    }
    const line = this.root.querySelector(".selection");
    line.hidden = !this.selected.size;
    line.querySelector(".selection-count").textContent = `${Atop.many(this.selected.size, "item")} selected`;
  }

  // -- events

  listen() {
    this.scroller.addEventListener("scroll", () => {
      if (this.drawing) return;
      this.drawing = true;
      requestAnimationFrame(() => { this.drawing = false; this.settle(); });
    });
    new ResizeObserver(() => { this.height = 0; if (this.meta) this.settle(); }).observe(this.scroller);
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("dblclick", (event) => {
      const cell = event.target.closest("td");
      if (cell && !event.target.closest("a")) this.edit();
    });
    this.body.addEventListener("keydown", (event) => this.pressed(event));
  }

  clicked(event) {
    const element = event.target.closest("tr");
    const cell = event.target.closest("td, th");
    if (!element || !cell) return;
    const id = element.dataset.id;
    const column = [...element.children].indexOf(cell);
    if (event.target.matches("input")) {
      if (event.shiftKey) this.selectTo(id);
      else this.select(id, event.target.checked);
    } else if (event.target.closest("a")) return;
    else if (event.shiftKey) this.selectTo(id);
    else if (event.ctrlKey || event.metaKey) this.select(id, !this.selected.has(id));
    const again = this.active.id === id && this.active.column === column && cell === document.activeElement;
    this.active = { id, column };
    this.markActive(true);
    if (again && event.pointerType === "touch" && column > 0) this.edit();
  }

  pressed(event) {
    if (event.target.matches("input") && event.key !== "Escape" && !event.key.startsWith("Arrow")) return;
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.rowHeight()) - 2);
    const control = event.ctrlKey || event.metaKey;
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-page, 0], PageDown: [page, 0] };
    const step = steps[event.key];
    if (step && !event.altKey && !control) {
      event.preventDefault();
      const extend = event.shiftKey && step[0];
      if (extend && !this.selected.size) this.select(this.active.id, true);
      this.go(...step).then(() => { if (extend) this.selectTo(this.active.id); }).catch(Atop.tell);
    } else if (event.key === "Home" || event.key === "End") {
      event.preventDefault();
      const last = event.key === "End";
      if (control) this.goEnd(last).catch(Atop.tell);
      else this.go(0, last ? 999 : -999);
    } else if (event.key === "Enter" || event.key === "F2") {
      event.preventDefault();
      if (this.active.column === 0) this.elements.get(this.active.id)?.querySelector("a").click();
      else this.edit();
    } else if (event.key === " " && !this.jump) {
      event.preventDefault();
      this.select(this.active.id, !this.selected.has(this.active.id));
    } else if (event.key === "Delete") {
      if (!this.selected.size && this.active.id) this.select(this.active.id, true);
      this.tools.remove();
    } else if (event.key === "Escape") {
      if (this.jump) this.jumpTo("");
      else if (this.selected.size) { this.selected.clear(); this.drawSelection(); }
    } else if (control && event.key === "a") {
      event.preventDefault();
      this.tools.selectAll();
    } else if (event.key === "Backspace" && this.jump) {
      event.preventDefault();
      this.jumpTo(this.jump.slice(0, -1));
    } else if (event.key.length === 1 && !control && !event.altKey) {
      event.preventDefault();
      this.jumpTo((this.jump || "") + event.key);
    }
  }

  edit() {
    const row = this.rows.find((candidate) => candidate.id === this.active.id);
    const column = this.columns[this.active.column - 1];
    if (row && column && !row.problem) this.editor.begin(row, this.active.column);
  }

  // Goes to the first row whose key begins with, or comes after, what is typed.
  jumpTo(text) {
    this.jump = text;
    const box = this.root.querySelector(".jump");
    box.hidden = !text;
    box.classList.remove("problem");
    box.textContent = text ? `Go to ${text}` : "";
    clearTimeout(this.jumpTimer);
    if (!text || this.words) return;
    this.jumpTimer = setTimeout(() => this.jumpTo(""), 2500);
    this.latest(async () => {
      try {
        await this.show({ start: text }, { counted: false });
        if (this.rows.length) this.active.id = this.rows[0].id;
        this.markActive(true);
      } catch (error) {
        box.textContent = `${text}: ${error.message}`;
        box.classList.add("problem");
      }
    });
  }

  // Runs one thing after the other, and of those that wait only the last.
  async latest(run) {
    this.waiting = run;
    if (this.running) return;
    this.running = true;
    try {
      while (this.waiting) {
        const next = this.waiting;
        this.waiting = null;
        await next().catch(Atop.tell);
      }
    } finally {
      this.running = false;
    }
  }
}

// The text of a cell, as it is edited.
Atop.textOf = (cell) => {
  if (cell === null || cell === undefined) return "";
  if (typeof cell === "object") return cell.t || "";
  return String(cell);
};

// The bar that shows where in the pool one is, and goes where it is dragged.
class ScrollBar {
  constructor(grid) {
    this.grid = grid;
    this.bar = grid.root.querySelector(".scroll-bar");
    this.thumb = this.bar.querySelector(".thumb");
    this.hint = this.bar.querySelector(".scroll-hint");
    this.bar.addEventListener("pointerdown", (event) => this.down(event));
    this.bar.addEventListener("keydown", (event) => this.pressed(event));
  }

  draw(top, seen) {
    const { total } = this.grid;
    const length = this.bar.clientHeight;
    this.bar.classList.toggle("idle", total <= seen + 0.5);
    const size = Math.max(28, Math.min(length, (length * seen) / Math.max(1, total)));
    const part = total > seen ? Math.max(0, Math.min(1, top / (total - seen))) : 0;
    this.thumb.style.height = `${size}px`;
    if (this.held === undefined) this.thumb.style.transform = `translateY(${part * (length - size)}px)`;
    this.bar.setAttribute("aria-valuenow", String(Math.round(100 * part)));
    this.bar.setAttribute("aria-valuetext", `about item ${Math.round(top) + 1} of ${total}`);
  }

  down(event) {
    event.preventDefault();
    const box = this.thumb.getBoundingClientRect();
    const inside = event.target === this.thumb;
    this.held = inside ? event.clientY - box.top : box.height / 2;
    this.bar.setPointerCapture(event.pointerId);
    const move = (moved) => this.to(moved.clientY);
    this.bar.addEventListener("pointermove", move);
    this.bar.addEventListener("lostpointercapture", () => {
      this.bar.removeEventListener("pointermove", move);
      this.held = undefined;
      this.hint.hidden = true;
      this.grid.settle();
    }, { once: true });
    if (!inside) this.to(event.clientY);
  }

  to(y) {
    const box = this.bar.getBoundingClientRect();
    const room = box.height - this.thumb.offsetHeight;
    const place = Math.max(0, Math.min(room, y - box.top - this.held));
    this.thumb.style.transform = `translateY(${place}px)`;
    this.go(room > 0 ? place / room : 0);
  }

  // Shows the rows at a part of the pool: those that are loaded at once, others as soon as they come.
  go(part) {
    const { grid } = this;
    const seen = (grid.scroller.clientHeight - grid.head.offsetHeight) / grid.rowHeight();
    const row = part * Math.max(0, grid.total - seen);
    const loaded = row >= grid.first && row + seen <= grid.first + grid.rows.length;
    if (loaded && !grid.before && !grid.after) grid.scroller.scrollTop = (row - grid.first) * grid.rowHeight();
    else grid.latest(async () => {
      await grid.show(part === 0 ? {} : { at: part >= 1 ? 1 : row / grid.total }, { counted: false });
      if (part >= 1) grid.scroller.scrollTop = grid.scroller.scrollHeight;
    });
    const first = grid.rows[Math.max(0, Math.floor(grid.scroller.scrollTop / grid.rowHeight()))];
    if (this.held !== undefined && first) {
      this.hint.hidden = false;
      this.hint.textContent = grid.keyText(first).slice(0, 40);
      this.hint.style.transform = this.thumb.style.transform;
    }
  }

  pressed(event) {
    const { grid } = this;
    const page = grid.scroller.clientHeight - 2 * grid.rowHeight();
    const step = { ArrowUp: -grid.rowHeight(), ArrowDown: grid.rowHeight(), PageUp: -page, PageDown: page }[event.key];
    if (step) grid.scroller.scrollTop += step;
    else if (event.key === "Home") this.go(0);
    else if (event.key === "End") this.go(1);
    else return;
    event.preventDefault();
  }
}

// What a row is ordered by.
Grid.prototype.keyText = function keyText(row) {
  const place = this.columns.findIndex((column) => column.index !== null && column.index === this.index);
  return (place >= 0 && Atop.textOf(row.cells[place])) || this.labelOf(row);
};
