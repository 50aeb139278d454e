// A list beside a pane: mail, contacts, notes, history. Each row is a link, so that the page works without this; here
// a click reads only the pane, arrow keys go through the rows, and the list grows as it is scrolled.
Atop.page("split", (root) => new Split(root));

class Split {
  constructor(root) {
    this.root = root;
    this.rows = root.querySelector(".split-rows");
    this.pane = root.querySelector("#pane");
    this.form = root.querySelector(".find");
    this.reading = null; // what stops the pane that is being read
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) this.grow(entry.target);
    }, { root: matchMedia("(max-width: 60rem)").matches ? null : this.rows, rootMargin: "400px" });
    this.rows.addEventListener("click", (event) => this.clicked(event));
    this.rows.addEventListener("keydown", (event) => this.pressed(event));
    this.pane.addEventListener("click", (event) => this.chosen(event));
    for (const link of root.querySelectorAll("[data-jump]")) {
      link.addEventListener("click", (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        this.list(link.href).then(() => this.rows.querySelector(".row")?.focus());
      });
    }
    document.addEventListener("keydown", (event) => this.shortcut(event));
    window.addEventListener("popstate", () => this.read(location.href));
    if (this.form) {
      this.form.addEventListener("submit", (event) => { event.preventDefault(); this.find(); });
      this.form.addEventListener("input", Atop.debounced(() => this.find(), 150));
    }
    Atop.refresh = () => Promise.all([this.refresh(), renewNavigation()]); // called after each commit
    this.watch();
    const current = this.current();
    if (current) current.scrollIntoView({ block: "nearest" });
  }

  links() { return [...this.rows.querySelectorAll(".row")]; }

  current() { return this.rows.querySelector('[aria-current="true"]'); }

  watch() {
    this.seen.disconnect();
    for (const link of this.rows.querySelectorAll(".more, .less")) this.seen.observe(link);
  }

  // -- the pane

  clicked(event) {
    const row = event.target.closest("a");
    if (!row || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if (row.matches(".more, .less")) this.grow(row);
    else this.open(row, true);
  }

  open(row, push) {
    this.mark(row.dataset.id);
    if (push) history.pushState({}, "", row.href);
    else history.replaceState({}, "", row.href);
    return this.read(row.href, push);
  }

  mark(id) {
    for (const row of this.links()) {
      if (row.dataset.id === id) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  async read(href, move = false) {
    if (this.reading) this.reading.abort();
    const reading = (this.reading = new AbortController());
    const text = await this.fetch(href, { part: "pane" }, reading.signal);
    if (text === null || this.reading !== reading) return;
    this.reading = null;
    this.pane.replaceChildren(...parsed(text));
    this.pane.scrollTop = 0;
    const content = this.pane.firstElementChild;
    const id = content && content.dataset.id;
    this.root.classList.toggle("reading", Boolean(id));
    this.mark(id);
    if (content && content.dataset.title) document.title = `${content.dataset.title} · Atop`;
    if (move && id && matchMedia("(max-width: 60rem)").matches) {
      this.pane.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
  }

  chosen(event) {
    const link = event.target.closest("a");
    const button = event.target.closest("button[data-do]");
    if (button) { Split.actions[button.dataset.do]?.(button, this); return; }
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
    if (link.matches("[data-back]")) {
      event.preventDefault();
      const row = this.current();
      this.root.classList.remove("reading");
      history.pushState({}, "", link.href);
      if (row) row.focus();
    } else if (link.matches("[data-open], [data-part]")) {
      event.preventDefault();
      if (link.matches("[data-open]")) history.pushState({}, "", link.href);
      this.read(link.href).then(() => this.pane.focus());
    }
  }

  // -- keys

  pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const rows = this.links();
    const here = rows.indexOf(document.activeElement);
    const page = Math.max(1, Math.floor(this.rows.clientHeight / (rows[0]?.offsetHeight || 60)) - 1);
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined || here < 0) return;
    event.preventDefault();
    const next = rows[Math.min(rows.length - 1, Math.max(0, here + step))];
    if (next === rows[here]) return;
    next.focus();
    this.mark(next.dataset.id);
    clearTimeout(this.timer);
    if (!matchMedia("(max-width: 60rem)").matches) this.timer = setTimeout(() => this.open(next, false), 70);
  }

  shortcut(event) {
    const typing = event.target.matches("input, select, textarea");
    if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (event.key === "/" && !typing && this.form) {
      event.preventDefault();
      this.form.querySelector("input").focus();
    } else if (event.key === "ArrowDown" && typing && this.links().length && event.target.type === "search") {
      event.preventDefault();
      (this.current() || this.links()[0]).focus();
    } else if (event.key === "Escape" && this.pane.contains(event.target)) {
      (this.root.classList.contains("reading") && this.pane.querySelector("[data-back]:not([hidden])")?.click());
      (this.current() || this.links()[0])?.focus();
    } else if (event.key === "Delete" && !typing && this.root.contains(event.target)) {
      this.pane.querySelector('button[data-do="delete"]')?.click();
    }
  }

  // -- the list

  async fetch(href, part, signal) {
    const url = new URL(href);
    for (const [name, value] of Object.entries(part)) url.searchParams.set(name, value);
    try {
      const response = await fetch(url, { headers: { accept: "text/html" }, signal });
      const text = await response.text();
      if (response.ok || part.part === "pane") return response.ok ? text : shown(text);
    } catch (error) {
      if (error.name !== "AbortError") Atop.toast("The program that serves this page does not answer.", { bad: true });
    }
    return null;
  }

  async find() {
    const url = new URL(this.root.dataset.list, location.href);
    for (const [name, value] of new FormData(this.form)) if (value) url.searchParams.set(name, value);
    this.scope = url.href;
    await this.list(url.href);
    this.rows.scrollTop = 0;
  }

  async list(href) {
    if (this.listing) this.listing.abort();
    const listing = (this.listing = new AbortController());
    this.address = href;
    const text = await this.fetch(href, { part: "list" }, listing.signal);
    if (text === null || this.listing !== listing) return;
    this.put(parsed(text));
  }

  // Puts a list in the place of the present one, keeping the place and the focus.
  put(nodes) {
    const focused = this.rows.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    const current = this.pane.firstElementChild?.dataset.id;
    const top = this.rows.scrollTop;
    this.rows.replaceChildren(...nodes);
    if (current) this.mark(current);
    if (focused) this.links().find((row) => row.dataset.id === focused)?.focus({ preventScroll: true });
    this.rows.scrollTop = top;
    this.watch();
  }

  // Adds what a link to more rows leads to, below or above.
  async grow(link) {
    if (link.dataset.busy) return;
    link.dataset.busy = "1";
    const text = await this.fetch(link.href, { part: "list" });
    if (text === null || !link.isConnected) return;
    const nodes = parsed(text);
    const list = this.rows.querySelector(".rows");
    const known = new Set(this.links().map((row) => row.dataset.id));
    const fresh = nodes.flatMap((node) => (node.matches?.(".rows") ? [...node.children] : []));
    const added = fresh.filter((row) => !known.has(row.querySelector(".row")?.dataset.id));
    const next = nodes.find((node) => node.matches?.(link.matches(".more") ? ".more" : ".less"));
    if (link.matches(".more")) {
      list.append(...added);
    } else {
      const before = this.rows.scrollHeight;
      list.prepend(...added);
      this.rows.scrollTop += this.rows.scrollHeight - before;
    }
    if (next) link.replaceWith(next);
    else link.remove();
    this.watch();
  }

  async refresh() {
    const open = this.pane.firstElementChild?.dataset.id;
    const busy = this.pane.contains(document.activeElement) && document.activeElement.matches("input, textarea, select");
    if (open && !busy) {
      const text = await this.fetch(location.href, { part: "pane" });
      const nodes = text === null ? [] : parsed(text);
      const same = nodes.length && nodes.map((n) => n.outerHTML || "").join("") === [...this.pane.children].map((n) => n.outerHTML).join("");
      if (nodes.length && !same && this.pane.firstElementChild?.dataset.id === open) this.change(nodes);
    }
    const start = new URL(this.address || this.root.dataset.start || this.root.dataset.list, location.href);
    if (!this.address) for (const name of ["q", "folder"]) {
      const value = new URL(location.href).searchParams.get(name);
      if (value) start.searchParams.set(name, value);
    }
    const listing = this.listing;
    const text = await this.fetch(start.href, { part: "list", count: Math.min(600, Math.max(60, this.links().length)) });
    if (text !== null && this.listing === listing && !this.rows.querySelector(".less")) this.put(parsed(text));
  }

  // Puts what has changed in the place of what is read, without losing the place.
  change(nodes) {
    const top = this.pane.scrollTop;
    const had = this.pane.contains(document.activeElement);
    this.pane.replaceChildren(...nodes);
    this.pane.scrollTop = top;
    if (had) this.pane.focus({ preventScroll: true });
  }
}

// What the buttons of a pane do.
Split.actions = {
  async delete(button, split) {
    const rows = split.links();
    const here = rows.findIndex((row) => row.dataset.id === button.dataset.id);
    const next = rows[here + 1] || rows[here - 1];
    try {
      const answer = await Atop.request("POST", "/api/items/delete", { ids: [button.dataset.id] });
      Atop.done(`The ${button.dataset.what} is deleted.`, answer.commit);
      rows[here]?.closest("li").remove();
      if (next) { next.focus(); await split.open(next, false); }
    } catch (error) {
      Atop.tell(error);
    }
  },

  async seen(button, split) {
    const flags = JSON.parse(button.dataset.flags);
    const now = flags.includes("seen") ? flags.filter((flag) => flag !== "seen") : [...flags, "seen"];
    const value = { kind: "list", items: now.map((text) => ({ kind: "str", text })) };
    try {
      await Atop.request("PATCH", `/api/items/${button.dataset.id}`, { version: button.dataset.version, set: { flags: value } });
      await split.refresh();
    } catch (error) {
      Atop.tell(error);
    }
  },
};

// Reads the navigation anew, with its counts, from a page that costs little.
const renewNavigation = Atop.debounced(async () => {
  const text = await fetch(`${Atop.base}/pools`, { headers: { accept: "text/html" } }).then((r) => (r.ok ? r.text() : ""), () => "");
  const fresh = new DOMParser().parseFromString(text, "text/html").querySelectorAll("#navigation ul");
  const olds = document.querySelectorAll("#navigation ul");
  if (fresh.length !== olds.length) return;
  const here = document.querySelector("#navigation [aria-current]")?.getAttribute("href");
  olds.forEach((old, place) => {
    for (const link of fresh[place].querySelectorAll("a")) {
      if (link.getAttribute("href") === here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (old.innerHTML !== fresh[place].innerHTML && !old.contains(document.activeElement)) old.replaceWith(document.adoptNode(fresh[place]));
  });
}, 400);

// The elements of a fragment.
function parsed(text) {
  return [...new DOMParser().parseFromString(text, "text/html").body.children].map((node) => document.adoptNode(node));
}

// Of a whole page, such as one for an error, what it says.
function shown(text) {
  const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
  return main ? `<div class="pane-empty">${main.innerHTML}</div>` : null;
}
