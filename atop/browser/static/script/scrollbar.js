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
      this.tell();
    });
    this.tell();
  }

  // While it is dragged, says beside the bar what the first row is ordered by.
  tell() {
    const { grid } = this;
    const first = grid.rows[Math.max(0, Math.floor(grid.scroller.scrollTop / grid.rowHeight()))];
    if (this.held === undefined || !first) return;
    this.hint.hidden = false;
    this.hint.textContent = grid.keyText(first).slice(0, 40);
    this.hint.style.transform = this.thumb.style.transform;
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
