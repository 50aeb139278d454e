// The table of a pool. Only the rows around what is seen are loaded: they are real rows, scrolled by the browser itself,
// and exchanged at both ends. The bar beside them shows, and takes, the place in the whole pool.
const CHUNK = 60; // rows that are loaded at once
const KEPT = 240; // rows that are in the page at most
const EDGE = 20; // rows before the end of what is loaded at which more is loaded


class GridRows {
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
    this.edits = []; // commits of the edits in cells, for Ctrl+Z
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
      const size = Math.min(KEPT, Math.max(CHUNK, this.rows.length));
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
