// Editing in a cell, as in a spreadsheet: Enter keeps and goes down, Tab keeps and goes on, Escape leaves it as it was.
// The editor lies over the cell, so that rows may move under it. What another device writes meanwhile is shown, and
// never overwritten unless that is chosen.
const TEXT_KINDS = new Set(["str", "int", "float", "decimal", "bool", "date", "datetime", "time", "timedelta", "uuid", "bytes"]);

class CellEditor {
  constructor(grid) {
    this.grid = grid;
    this.open = false;
    this.sending = new Map(); // item and attribute -> a write that is under way
    this.box = Atop.element("div", { class: "cell-editor", hidden: true });
    this.input = Atop.element("textarea", { rows: "1", spellcheck: "true", autocomplete: "off" });
    this.note = Atop.element("div", { class: "cell-note", role: "alert", hidden: true, id: "cell-note" });
    this.input.setAttribute("aria-describedby", "cell-note");
    this.box.append(this.input, this.note);
    grid.scroller.append(this.box);
    this.input.addEventListener("keydown", (event) => this.pressed(event));
    this.input.addEventListener("input", () => { this.fit(); this.dirty = true; });
    this.box.addEventListener("focusout", (event) => {
      if (this.open && !this.box.contains(event.relatedTarget) && document.hasFocus()) this.keep();
    });
  }

  // Edits a cell; `text`, if it is given, takes the place of what is in it.
  async begin(row, place, text) {
    const column = this.grid.columns[place - 1];
    let cell = row.cells[place - 1];
    const kind = cell === null || cell?.k === "none" ? column.kind : this.kindOf(cell);
    if (row.fixed) {
      Atop.toast("This item cannot be changed here: the program does not know its class.");
      return;
    }
    if (!TEXT_KINDS.has(kind)) {
      location.href = `${Atop.base}/items/${row.id}?edit=${encodeURIComponent(column.name)}`;
      return;
    }
    let version = row.version;
    if (cell?.cut) {
      const whole = await Atop.request("GET", `/api/items/${row.id}/value?name=${encodeURIComponent(column.name)}`);
      cell = whole.value;
      version = whole.version;
    }
    this.start({ id: row.id, version, place, column, kind, cell, dirty: false, shown: JSON.stringify(row.cells[place - 1]) }, Atop.textOf(cell));
    if (text === undefined) this.input.select();
    else {
      this.input.value = text;
      this.dirty = true;
      this.fit();
    }
  }

  start(edit, text) {
    Object.assign(this, edit, { open: true });
    this.input.value = text;
    this.input.setAttribute("aria-label", edit.column.name);
    this.say("");
    this.box.hidden = false;
    this.put();
    this.fit();
    this.input.focus({ preventScroll: true });
  }

  kindOf(cell) {
    if (typeof cell === "string") return "str";
    if (typeof cell === "boolean") return "bool";
    return cell.k;
  }

  // Lays the editor over its cell.
  put() {
    const cell = this.grid.cellAt(this.id, this.place);
    if (!cell) return;
    const frame = this.grid.scroller.getBoundingClientRect();
    const box = cell.getBoundingClientRect();
    this.box.style.left = `${box.left - frame.left + this.grid.scroller.scrollLeft}px`;
    this.box.style.top = `${box.top - frame.top + this.grid.scroller.scrollTop}px`;
    this.box.style.width = `${Math.max(box.width, 140)}px`;
  }

  fit() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(240, this.input.scrollHeight + 2)}px`;
  }

  say(text, ...buttons) {
    this.note.hidden = !text;
    this.note.replaceChildren(text, ...buttons);
    this.input.setAttribute("aria-invalid", String(Boolean(text)));
  }

  pressed(event) {
    event.stopPropagation();
    if (event.key === "Escape") {
      event.preventDefault();
      this.end(true);
    } else if (event.key === "Enter" && !event.altKey && !event.shiftKey) {
      event.preventDefault();
      this.keep([1, 0]);
    } else if (event.key === "Enter" && event.altKey) {
      event.preventDefault();
      this.input.setRangeText("\n", this.input.selectionStart, this.input.selectionEnd, "end");
      this.fit();
      this.dirty = true;
    } else if (event.key === "Tab") {
      event.preventDefault();
      this.keep([0, event.shiftKey ? -1 : 1]);
    }
  }

  // Writes the value, and goes on by `step` without waiting: a spreadsheet never holds up who types.
  async keep(step = null) {
    const text = this.input.value;
    const edit = { id: this.id, place: this.place, column: this.column, kind: this.kind, cell: this.cell, version: this.version, text };
    const unchanged = !this.dirty || text === Atop.textOf(this.cell);
    this.end(Boolean(step));
    if (step) this.grid.go(...step).catch(Atop.tell);
    if (unchanged) return;
    const shown = this.grid.cellAt(edit.id, edit.place);
    if (shown) { shown.textContent = text; shown.classList.add("pending"); }
    const name = `${edit.id} ${edit.column.name}`;
    const before = this.sending.get(name); // a write of the same value that is under way: this one comes after it
    const sent = (async () => ((await before?.catch(() => null)) || { version: edit.version }))()
      .then(({ version }) => this.send({ ...edit, version }));
    this.sending.set(name, sent);
    try {
      await sent;
    } catch (error) {
      this.again(edit, error);
    } finally {
      if (this.sending.get(name) === sent) this.sending.delete(name);
    }
  }

  async send(edit) {
    const value = edit.text === "" && edit.kind !== "str" ? { kind: "none" } : { kind: edit.kind, text: edit.text };
    const answer = await Atop.request("PATCH", `/api/items/${edit.id}`, { version: edit.version, set: { [edit.column.name]: value } });
    this.grid.put(answer.item);
    if (answer.commit) this.grid.edits.push(answer.commit);
    if (this.open && this.id === edit.id && this.column === edit.column) { // edited again meanwhile: that is no clash
      this.version = answer.item.version;
      this.shown = JSON.stringify(answer.item.attributes[edit.column.name] ?? null);
    }
    return answer.item;
  }

  // The value was not taken: its cell is edited again, with the reason; later, if another one is being edited.
  again(edit, error) {
    const clash = error.status === 409 && error.answer.item;
    if (clash) this.grid.put(error.answer.item);
    const row = this.grid.rows.find((candidate) => candidate.id === edit.id);
    const open = () => {
      const element = this.grid.cellAt(edit.id, edit.place);
      if (!element) return Atop.tell(new Error(`${edit.column.name} was not changed to “${edit.text.slice(0, 80)}”: ${error.message}`));
      this.grid.active = { id: edit.id, column: edit.place };
      this.grid.markActive(true);
      this.start({ ...edit, dirty: true, shown: JSON.stringify(row.cells[edit.place - 1]) }, edit.text);
      if (clash) this.clash(error.answer.item);
      else this.say(error.message);
      return undefined;
    };
    if (!this.open && row) open();
    else Atop.toast(`${edit.column.name}: ${error.message}`, { bad: true, action: { label: "Go back to it", run: open } });
    if (row && !clash) this.grid.fillRow(this.grid.elements.get(edit.id), row, null);
    if (!this.open) this.grid.markActive(true);
    else this.input.focus({ preventScroll: true });
  }

  // Another device has changed the same value: both are shown, and the person chooses.
  clash(item) {
    const theirs = item.attributes[this.column.name] ?? null;
    const take = Atop.element("button", { type: "button", click: () => { this.grid.put(item); this.end(true); } }, "Take theirs");
    const mine = Atop.element("button", { type: "button", click: () => { this.version = item.version; this.cell = theirs; this.dirty = true; this.keep([0, 0]); } }, "Keep mine");
    this.shown = JSON.stringify(theirs);
    this.say(`Changed elsewhere to “${Atop.textOf(theirs).slice(0, 120) || "nothing"}”. `, take, mine);
  }

  // After rows were read again: follows the cell, and tells if its value has changed under the edit.
  follow() {
    if (!this.open) return;
    this.put();
    const row = this.grid.rows.find((candidate) => candidate.id === this.id);
    if (!row) return;
    const now = row.cells[this.place - 1];
    if (this.sending.has(`${this.id} ${this.column.name}`)) return;
    if (JSON.stringify(now) === this.shown || row.version === this.version) return;
    this.clash({ version: row.version, id: row.id, attributes: { [this.column.name]: now } });
  }

  end(focus) {
    this.open = false;
    this.box.hidden = true;
    this.say("");
    if (focus) this.grid.markActive(true);
  }
}

// Shows an item as the server has just described it.
Grid.prototype.put = function put(item) {
  const row = this.rows.find((candidate) => candidate.id === item.id);
  if (!row) return;
  row.version = item.version;
  this.columns.forEach((column, place) => {
    if (column.name in item.attributes) row.cells[place] = item.attributes[column.name];
  });
  const focused = this.body.contains(document.activeElement);
  this.fillRow(this.elements.get(row.id), row, null);
  this.markActive(focused, false);
};
