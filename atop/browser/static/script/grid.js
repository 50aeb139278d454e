// The table under the hands: the active cell, the selection, the keyboard.
class Grid extends GridView {
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
    this.body.addEventListener("copy", (event) => {
      if (String(getSelection())) return;
      event.clipboardData.setData("text/plain", Atop.textOf(this.activeCell()));
      event.preventDefault();
    });
    this.body.addEventListener("paste", (event) => {
      event.preventDefault();
      this.edit(event.clipboardData.getData("text/plain"));
    });
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
    } else if (control && event.key === "z") {
      event.preventDefault();
      this.undo().catch(Atop.tell);
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

  activeCell() {
    return this.rows.find((row) => row.id === this.active.id)?.cells[this.active.column - 1];
  }

  // Edits the active cell; with `text`, that takes the place of what is in it.
  edit(text) {
    const row = this.rows.find((candidate) => candidate.id === this.active.id);
    const column = this.columns[this.active.column - 1];
    if (row && column && !row.problem) this.editor.begin(row, this.active.column, text).catch(Atop.tell);
  }

  // Takes back the last edit that was made in a cell here, once what is being written is.
  async undo() {
    await Promise.allSettled([...this.editor.sending.values()]);
    const commit = this.edits.pop();
    if (!commit) { Atop.toast("Nothing was edited in this table since it was opened.", { seconds: 3 }); return; }
    const done = await Atop.request("POST", "/api/undo", { commit });
    Atop.toast(`Undone: ${done.label}.`, { seconds: 3 });
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
}
