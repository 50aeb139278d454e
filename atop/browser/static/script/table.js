// What stands around the table: words, filter, columns, new items, changes of many, indexes, export.
Atop.page("table", (root) => {
  const grid = new Grid(root);
  const tools = (grid.tools = new TableTools(grid, root));
  const refresh = Atop.refresh; // of the navigation
  Atop.refresh = () => Promise.all([grid.meta ? grid.reload(true) : null, refresh()]);
  grid.begin().then(() => tools.drawFilter()).catch(Atop.tell);
});

class TableTools {
  constructor(grid, root) {
    this.grid = grid;
    this.root = root;
    this.form = root.querySelector("#filter");
    this.problem = this.form.querySelector(".problem");
    const words = root.querySelector("#words");
    words.addEventListener("input", Atop.debounced(() => this.find(words.value), 120));
    words.form.addEventListener("submit", (event) => { event.preventDefault(); this.find(words.value); });
    this.form.addEventListener("submit", (event) => { event.preventDefault(); this.filter(); });
    this.form.addEventListener("input", (event) => {
      const { prefix, first, last } = this.form.elements;
      if (event.target === prefix) first.value = last.value = "";
      else prefix.value = "";
    });
    const actions = {
      filter: () => this.toggleFilter(),
      "clear-filter": () => this.clear(),
      columns: () => this.chooseColumns(),
      more: (button) => this.more(button),
      create: () => this.create(),
      change: () => this.change(),
      take: () => this.take(),
      delete: () => this.remove(),
      "select-all": () => this.selectAll(),
      "select-none": () => { grid.selected.clear(); grid.drawSelection(); grid.markActive(true); },
    };
    for (const [name, run] of Object.entries(actions)) {
      const button = root.querySelector(`[data-do="${name}"]`);
      button.addEventListener("click", () => run(button));
    }
  }

  // -- words and ranges

  async find(text) {
    const words = text.trim();
    if (words === this.grid.words) return;
    const { grid } = this;
    if (words && !grid.meta.indexes.some((index) => index.words && index.ready)) {
      const made = await this.offerWords();
      if (!made) { this.root.querySelector("#words").value = ""; return; }
    }
    grid.words = words;
    grid.drawHead();
    grid.latest(() => grid.show({}));
  }

  toggleFilter() {
    this.form.hidden = !this.form.hidden;
    this.root.querySelector("[data-do=filter]").setAttribute("aria-expanded", String(!this.form.hidden));
    this.drawFilter();
    if (!this.form.hidden) this.form.querySelector("input:not([disabled])").focus();
  }

  drawFilter() {
    const { grid, form } = this;
    const column = grid.columns.find((candidate) => candidate.index !== null && candidate.index === grid.index);
    form.querySelector(".filter-index").textContent = grid.index === null ? "Item number" : column ? column.name : grid.index;
    form.elements.prefix.disabled = grid.index === null || !["str", "bytes"].includes(column ? column.kind : "str");
    const example = { date: "2024-05-31 or 2024", datetime: "2024-05-31 or 2024" }[column?.kind] || "";
    form.elements.first.placeholder = form.elements.last.placeholder = example;
    if (!Object.keys(grid.part).length) for (const name of ["prefix", "first", "last"]) form.elements[name].value = "";
    this.problem.textContent = "";
  }

  async filter() {
    const { grid, form } = this;
    const part = {};
    for (const name of ["prefix", "first", "last"]) if (form.elements[name].value && !form.elements[name].disabled) part[name] = form.elements[name].value;
    const before = grid.part;
    grid.part = part;
    grid.words = "";
    this.root.querySelector("#words").value = "";
    this.problem.textContent = "";
    try {
      await grid.show({});
    } catch (error) {
      grid.part = before;
      this.problem.textContent = error.message;
    }
  }

  clear() {
    this.grid.words = "";
    this.grid.part = {};
    this.root.querySelector("#words").value = "";
    this.drawFilter();
    this.grid.drawHead();
    this.grid.show({}).catch(Atop.tell);
  }

  // -- columns

  async chooseColumns() {
    const { grid } = this;
    const shown = new Set(grid.columns.map((column) => column.name));
    const others = grid.meta.columns.filter((column) => !shown.has(column.name));
    const list = Atop.element("ol", { class: "column-list" });
    const add = (column, on) => {
      const box = Atop.element("input", { type: "checkbox" });
      box.checked = on;
      const step = (by) => Atop.element("button", {
        type: "button", class: "plain", "aria-label": `Move ${column.name} ${by < 0 ? "up" : "down"}`,
        click: (event) => {
          const other = by < 0 ? line.previousElementSibling : line.nextElementSibling;
          if (other) (by < 0 ? other.before(line) : other.after(line));
          event.currentTarget.focus();
        },
      }, by < 0 ? "↑" : "↓");
      const line = Atop.element("li", {}, Atop.element("label", {}, box, " ", Atop.element("bdi", {}, column.name)), Atop.element("small", { class: "soft" }, column.used === 0 ? "not used" : ""), step(-1), step(1));
      line.column = column;
      list.append(line);
    };
    grid.columns.forEach((column) => add(column, true));
    [...others].sort((a, b) => b.used - a.used).forEach((column) => add(column, false));
    const go = async () => {
      const chosen = [...list.children].filter((line) => line.querySelector("input").checked).map((line) => line.column);
      if (!chosen.length) throw new Error("Choose at least one column.");
      grid.columns = chosen.slice(0, 60);
      grid.columnsChanged();
    };
    await Atop.ask({ title: "Columns", body: list, button: "Show these", go });
  }

  // -- indexes

  async reread() {
    this.grid.meta = await Atop.request("GET", this.grid.path);
    const known = new Map(this.grid.meta.columns.map((column) => [column.name, column]));
    for (const column of this.grid.columns) column.index = known.get(column.name)?.index ?? null;
    this.grid.drawHead();
  }

  async offerIndex(column) {
    const nocase = Atop.element("input", { type: "checkbox", name: "nocase", checked: true });
    const body = Atop.element("div", {},
      Atop.element("p", {}, `To order by ${column.name}, the pool keeps an index of it from now on.`),
      column.kind === "str" ? Atop.element("p", {}, Atop.element("label", {}, nocase, " Capital and small letters are the same")) : null);
    const go = () => this.build({ attributes: [column.name], nocase: column.kind === "str" && nocase.checked });
    return Atop.ask({ title: `Order by ${column.name}`, body, button: "Make the index", go });
  }

  async offerWords() {
    const texts = this.grid.meta.columns.filter((column) => ["str", "list"].includes(column.kind) && column.used && !["uid", "fingerprint"].includes(column.name));
    const body = Atop.element("div", {}, Atop.element("p", {}, "To find words, the pool keeps an index of those in:"));
    for (const column of texts.slice(0, 16)) {
      const box = Atop.element("input", { type: "checkbox", name: "attribute", value: column.name });
      box.checked = true;
      body.append(Atop.element("p", {}, Atop.element("label", {}, box, " ", column.name)));
    }
    const go = (data) => this.build({ attributes: data.getAll("attribute"), words: true });
    return Atop.ask({ title: "Find words", body, button: "Make the index", go });
  }

  async build(index) {
    const label = `Making the index ${index.words ? "of words" : index.attributes.join(", ")}`;
    const made = await Atop.task(label, Atop.request("POST", `${this.grid.path}/indexes`, index));
    await this.reread();
    return made.index;
  }

  addIndex() {
    const names = this.grid.meta.columns.map((column) => column.name);
    const options = () => names.map((name) => Atop.element("option", { value: name }, name));
    const first = Atop.element("select", { name: "attribute" }, ...options());
    const second = Atop.element("select", { name: "attribute" }, Atop.element("option", { value: "" }, "nothing"), ...options());
    const nocase = Atop.element("input", { type: "checkbox", name: "nocase" });
    const body = Atop.element("div", {}, Atop.field("Order by", first), Atop.field("then by", second), Atop.element("p", {}, Atop.element("label", {}, nocase, " Capital and small letters are the same")));
    const go = (data) => this.build({ attributes: data.getAll("attribute").filter((name) => name), nocase: nocase.checked });
    return Atop.ask({ title: "Add an index", body, button: "Make the index", go }).then((index) => { if (index) this.grid.sort(index, null); });
  }

  dropIndex() {
    const select = Atop.element("select", { name: "index" }, ...this.grid.meta.indexes.map((index) => Atop.element("option", { value: index.name }, index.name)));
    const body = Atop.element("div", {}, Atop.element("p", {}, "The items stay as they are; the pool can no longer be shown in this order."), Atop.field("Index", select));
    const go = async (data) => {
      await Atop.task("Removing the index", Atop.request("POST", `${this.grid.path}/drop-index`, { name: data.get("index") }));
      if (this.grid.index === data.get("index")) this.grid.index = null;
      await this.reread();
      await this.grid.show({});
    };
    return Atop.ask({ title: "Remove an index", body, button: "Remove", danger: true, go });
  }

  more(button) {
    const { grid } = this;
    const whole = (format) => () => { location.href = `${Atop.base}/pools/${grid.pool}/export?format=${format}`; };
    const shown = () => { location.href = `${Atop.base}/pools/${grid.pool}/export?${grid.query({ format: "csv" })}`; };
    const types = new Set(grid.meta.types);
    const lines = [
      { label: "Export what is shown (CSV)", run: shown },
      { label: "Export everything (JSON Lines)", run: whole("jsonl") },
      types.has("pim.Contact") ? { label: "Export everything (vCard)", run: whole("vcard") } : undefined,
      types.has("pim.Event") || types.has("pim.Note") ? { label: "Export everything (iCalendar)", run: whole("icalendar") } : undefined,
      types.has("pim.Message") ? { label: "Export everything (mbox)", run: whole("mbox") } : undefined,
      { label: "Import a file", run: Atop.chooseFiles },
      null,
      { label: "Add an index", run: () => this.addIndex() },
      grid.meta.indexes.length ? { label: "Remove an index", run: () => this.dropIndex() } : undefined,
      { label: "Delete this pool", danger: true, run: () => this.deletePool() },
    ];
    Atop.menu(button, lines.filter((line) => line !== undefined));
  }

  deletePool() {
    const go = async () => {
      await Atop.task("Deleting the pool", Atop.request("DELETE", this.grid.path));
      location.href = `${Atop.base}/pools`;
    };
    return Atop.ask({ title: `Delete the pool ${this.grid.meta.name}?`, body: "Its items stay in the store, and in other pools; this list of them and its indexes go.", button: "Delete the pool", danger: true, go });
  }

  // -- items

  valueField(column, name) {
    const input = column.kind === "bool"
      ? Atop.element("select", { name }, ...["", "true", "false"].map((value) => Atop.element("option", { value }, value)))
      : Atop.element("input", { name, autocomplete: "off", type: "text", placeholder: { date: "2024-05-31", datetime: "2024-05-31 09:30", int: "42" }[column.kind] || null });
    return Atop.field(column.name, input);
  }

  async create() {
    const { grid } = this;
    const columns = grid.columns.filter((column) => TEXT_KINDS.has(column.kind)).slice(0, 10);
    const type = Atop.element("select", { name: " type" }, ...grid.meta.types.map((name) => Atop.element("option", { value: name }, name.split(".").pop())));
    const body = Atop.element("div", {}, grid.meta.types.length > 1 ? Atop.field("Kind", type) : null);
    for (const column of columns.length ? columns : [{ name: "name", kind: "str" }]) body.append(this.valueField(column, column.name));
    const go = async (data) => {
      const set = {};
      for (const column of columns.length ? columns : [{ name: "name", kind: "str" }]) if (data.get(column.name)) set[column.name] = { kind: column.kind, text: data.get(column.name) };
      return Atop.request("POST", `${grid.path}/items`, { type: type.value || "atop.Item", set });
    };
    const made = await Atop.ask({ title: "New item", body, button: "Make it", go });
    if (!made) return;
    const open = { label: "Open", run: () => { location.href = `${Atop.base}/items/${made.item.id}`; } };
    Atop.toast(`${made.item.label} is made.`, { action: open });
    if (!grid.columns.length || grid.meta.columns.length < Object.keys(made.item.attributes).length) await grid.begin();
    else await this.showItem(made.item);
    if (grid.elements.has(made.item.id)) { grid.active.id = made.item.id; grid.markActive(true); }
  }

  // Shows the place of an item in the present order.
  async showItem(item) {
    const { grid } = this;
    const column = grid.columns.find((candidate) => candidate.index !== null && candidate.index === grid.index);
    const key = grid.index === null ? item.id : column ? Atop.textOf(item.attributes[column.name]) : "";
    if (key && !grid.words) await grid.show({ start: key });
    else await grid.reload(false);
  }

  chosen() {
    return [...this.grid.selected];
  }

  async change() {
    const { grid } = this;
    const ids = this.chosen();
    const columns = grid.meta.columns.filter((column) => TEXT_KINDS.has(column.kind));
    const select = Atop.element("select", { name: " attribute" }, ...columns.map((column) => Atop.element("option", { value: column.name }, column.name)));
    const input = Atop.element("input", { name: " value", autocomplete: "off" });
    const body = Atop.element("div", {}, Atop.field("Attribute", select), Atop.field("New value (empty: none)", input));
    const go = async () => {
      const column = columns.find((candidate) => candidate.name === select.value);
      const value = input.value === "" && column.kind !== "str" ? { kind: "none" } : { kind: column.kind, text: input.value };
      return Atop.request("POST", "/api/items/change", { ids, set: { [column.name]: value } });
    };
    const done = await Atop.ask({ title: `Change ${Atop.many(ids.length, "item")}`, body, button: "Change all", go });
    if (!done) return;
    Atop.done(`${Atop.many(done.count, "item")} changed.`, done.commit);
    await grid.reload(false);
  }

  async take() {
    const ids = this.chosen();
    try {
      const done = await Atop.request("POST", `${this.grid.path}/remove`, { ids });
      this.gone(`${Atop.many(done.count, "item")} taken out of the pool.`, done.commit);
    } catch (error) { Atop.tell(error); }
  }

  async remove() {
    const ids = this.chosen();
    if (!ids.length) return;
    const send = () => Atop.request("POST", "/api/items/delete", { ids });
    try {
      const done = ids.length < 20 ? await send() : await Atop.ask({ title: `Delete ${Atop.many(ids.length, "item")}?`, body: "This can be undone, here or in the history.", button: "Delete", danger: true, go: send });
      if (done) this.gone(`${Atop.many(done.count, "item")} deleted.`, done.commit);
    } catch (error) { Atop.tell(error); }
  }

  gone(text, commit) {
    const { grid } = this;
    const place = grid.rows.findIndex((row) => grid.selected.has(row.id));
    const next = grid.rows.slice(place).find((row) => !grid.selected.has(row.id)) || grid.rows[place - 1];
    grid.active.id = next ? next.id : null;
    grid.selected.clear();
    Atop.done(text, commit);
    grid.reload(false).then(() => { grid.drawSelection(); grid.markActive(true); });
  }

  async selectAll() {
    try {
      const query = new URLSearchParams(this.grid.order());
      const { ids } = await Atop.request("GET", `${this.grid.path}/ids?${query}`);
      this.grid.selected = new Set(ids);
      this.grid.drawSelection();
    } catch (error) { Atop.tell(error); }
  }
}
