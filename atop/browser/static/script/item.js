// The page of an item: editors in place of values, pools, undo. It follows commits part by part, so that neither the
// place nor an edit is lost.
Atop.page("item", (root) => new ItemPage(root));

Atop.page("gone", (root) => {
  const button = root.querySelector("[data-commit]");
  button?.addEventListener("click", () => {
    Atop.request("POST", "/api/undo", { commit: button.dataset.commit }).then(() => location.reload(), Atop.tell);
  });
});

class ItemPage {
  constructor(root) {
    this.root = root;
    this.id = root.dataset.item;
    this.path = `/api/items/${this.id}`;
    root.addEventListener("click", (event) => this.clicked(event));
    root.addEventListener("dblclick", (event) => {
      const row = event.target.closest(".attribute");
      if (row && row.querySelector(".edit") && !event.target.closest("a, button, .editing")) this.edit(row);
    });
    Atop.onCommit(Atop.throttled(() => this.reload(), 100));
    const wanted = new URLSearchParams(location.search).get("edit");
    if (wanted) {
      const row = this.rowOf(wanted);
      if (row) { row.closest("details")?.setAttribute("open", ""); this.edit(row); } else this.add(wanted);
      history.replaceState(null, "", location.pathname);
    }
  }

  rowOf(name) {
    return [...this.root.querySelectorAll(".attribute")].find((row) => row.dataset.attribute === name);
  }

  clicked(event) {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.classList.contains("edit")) this.edit(button.closest(".attribute")).catch(Atop.tell);
    const run = { delete: () => this.remove(), add: () => this.add(""), join: () => this.join(), leave: () => this.leave(button.dataset.pool), undo: () => this.undo(button) }[button.dataset.do];
    if (run) Promise.resolve(run()).catch(Atop.tell);
  }

  // Reads the page anew, and exchanges the parts that are not being worked in.
  async reload() {
    const response = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
    if (!response) return;
    if (response.status === 404) {
      if (!this.root.querySelector(".gone-note")) this.root.prepend(Atop.element("p", { class: "problem gone-note", role: "alert" }, "This item was deleted meanwhile. ", Atop.element("a", { href: location.href }, "See what became of it")));
      return;
    }
    const read = new DOMParser().parseFromString(await response.text(), "text/html").querySelector("[data-page=item]");
    if (!read) return;
    this.root.querySelector(".gone-note")?.remove();
    for (const part of this.root.querySelectorAll("[data-section]")) {
      const fresh = read.querySelector(`[data-section="${part.dataset.section}"]`);
      if (part.dataset.section === "attributes") this.takeAttributes(part, fresh);
      else if (fresh && part.outerHTML !== fresh.outerHTML) this.exchange(part, fresh);
    }
    this.root.dataset.version = read.dataset.version;
  }

  // Puts a part in place of an old one; the keyboard stays at the same button of it.
  exchange(old, fresh) {
    const inside = old.contains(document.activeElement);
    const buttons = [...old.querySelectorAll("button, a, summary")];
    const place = buttons.indexOf(document.activeElement);
    const made = document.adoptNode(fresh);
    old.replaceWith(made);
    if (inside) made.querySelectorAll("button, a, summary")[Math.min(place, made.querySelectorAll("button, a, summary").length - 1)]?.focus({ preventScroll: true });
  }

  takeAttributes(part, fresh) {
    const editing = part.querySelector(".editing");
    if (!editing) {
      if (part.querySelector("details")?.open) fresh.querySelector("details")?.setAttribute("open", "");
      const names = new Map([...part.querySelectorAll(".attribute")].map((row) => [row.dataset.attribute, row.querySelector(".attribute-value").innerHTML]));
      for (const row of fresh.querySelectorAll(".attribute")) {
        const was = names.get(row.dataset.attribute);
        if (was !== undefined && was !== row.querySelector(".attribute-value").innerHTML) row.classList.add("fresh");
      }
      this.exchange(part, fresh);
      return;
    }
    for (const row of part.querySelectorAll(".attribute")) {
      const next = [...fresh.querySelectorAll(".attribute")].find((one) => one.dataset.attribute === row.dataset.attribute);
      if (row === editing) {
        const now = next ? next.querySelector(".attribute-value").innerHTML : "";
        if (row.shown !== undefined && now !== row.shown && next && next.dataset.version !== row.version) {
          row.shown = now;
          this.clash(row, next.querySelector(".attribute-value").innerText.trim(), next.dataset.version);
        }
      } else if (next && next.outerHTML !== row.outerHTML) row.replaceWith(document.adoptNode(next));
    }
  }

  async edit(row) {
    const open = this.root.querySelector(".editing");
    if (open && open !== row) await this.close(open, true);
    const name = row.dataset.attribute;
    const found = await Atop.request("GET", `${this.path}/tree?name=${encodeURIComponent(name)}`);
    row = this.rowOf(name) ?? row; // the page may have been read anew meanwhile, and the row is another one
    row.version = found.version;
    row.shown = row.querySelector(".attribute-value").innerHTML;
    this.open(row, name, found.value, found.own);
  }

  open(row, name, tree, removable) {
    const editor = Atop.editor(tree, { label: name });
    const problem = Atop.element("p", { class: "problem", role: "alert" });
    const keep = Atop.element("button", { type: "submit", class: "main" }, "Keep");
    const cancel = Atop.element("button", { type: "button", click: () => this.close(row, false) }, "Cancel");
    const remove = removable ? Atop.element("button", { type: "button", class: "danger", click: () => this.send(row, name, null) }, "Remove the attribute") : null;
    const form = Atop.element("form", { class: "value-form" }, editor.element, problem, Atop.element("p", { class: "buttons" }, remove, cancel, keep));
    form.addEventListener("submit", (event) => { event.preventDefault(); this.send(row, name, editor.read()); });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented) { event.preventDefault(); this.close(row, false); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.send(row, name, editor.read()); }
    });
    row.before_ = row.querySelector(".attribute-value").cloneNode(true);
    row.first = JSON.stringify(editor.read());
    row.editor = editor;
    row.classList.add("editing");
    row.querySelector(".attribute-value").replaceChildren(form);
    row.querySelector(".edit")?.setAttribute("hidden", "");
    editor.focus();
  }

  // Ends an edit: with `keep`, what was changed is sent first.
  async close(row, keep) {
    if (keep && row.editor && JSON.stringify(row.editor.read()) !== row.first) {
      await this.send(row, row.dataset.attribute, row.editor.read());
      return;
    }
    const fresh = row.dataset.fresh !== undefined;
    row.classList.remove("editing");
    if (fresh) row.remove();
    else {
      row.querySelector(".attribute-value").replaceWith(row.before_);
      const button = row.querySelector(".edit");
      button.removeAttribute("hidden");
      button.focus();
    }
    await this.reload();
  }

  async send(row, name, value) {
    const problem = row.querySelector(".problem");
    const body = value === null ? { version: row.version, remove: [name] } : { version: row.version, set: { [name]: value } };
    try {
      const answer = await Atop.request("PATCH", this.path, body);
      row.classList.remove("editing");
      if (answer.commit) Atop.done(value === null ? `${name} is removed.` : `${name} is changed.`, answer.commit);
      await this.reload();
      const now = this.rowOf(name);
      now?.closest("details")?.setAttribute("open", "");
      (now?.querySelector(".edit") || this.root.querySelector("[data-do=add]"))?.focus();
    } catch (error) {
      if (error.status === 409 && error.answer.item) this.clash(row, Atop.textOf(error.answer.item.attributes[name]) || "nothing", error.answer.item.version);
      else problem.textContent = error.message;
    }
  }

  clash(row, theirs, version) {
    const problem = row.querySelector(".problem");
    const mine = Atop.element("button", { type: "button", click: () => { row.version = version; this.send(row, row.dataset.attribute, row.editor.read()); } }, "Keep mine");
    const take = Atop.element("button", { type: "button", click: () => { row.classList.remove("editing"); this.reload(); } }, "Take theirs");
    problem.replaceChildren(`Changed elsewhere to “${theirs.slice(0, 200)}”. `, take, " ", mine);
  }

  async add(given) {
    const name = Atop.element("input", { name: "name", required: true, autocomplete: "off", maxlength: "300" });
    name.value = given;
    const kind = Atop.element("select", { name: "kind" }, ...Object.entries(KINDS).map(([one, text]) => Atop.element("option", { value: one }, text)));
    const go = async (data) => {
      if (this.rowOf(data.get("name"))) throw new Error("There is an attribute of this name: edit that.");
      return [data.get("name"), data.get("kind")];
    };
    const chosen = await Atop.ask({ title: "Add an attribute", body: Atop.element("div", {}, Atop.field("Name", name), Atop.field("Kind", kind)), button: "Go on", go });
    if (!chosen) return;
    const row = Atop.element("div", { class: "attribute", "data-attribute": chosen[0], "data-fresh": "" },
      Atop.element("div", { class: "attribute-name" }, chosen[0]), Atop.element("div", { class: "attribute-value" }));
    row.version = this.root.dataset.version;
    this.root.querySelector("[data-do=add]").closest("p").before(row);
    this.open(row, chosen[0], { k: chosen[1], t: "", items: [], entries: [] }, false);
  }

  async remove() {
    const done = await Atop.request("POST", "/api/items/delete", { ids: [this.id] });
    const undo = () => Atop.request("POST", "/api/undo", { commit: done.commit }).then(() => location.reload(), Atop.tell);
    this.root.replaceChildren(Atop.element("h1", {}, "Deleted"), Atop.element("p", {}, "This item is deleted."), Atop.element("p", {}, Atop.element("button", { type: "button", class: "main", click: undo }, "Undo"), " ", Atop.element("a", { href: `${Atop.base}/` }, "Go to the pools")));
    this.root.querySelector("button").focus();
  }

  async join() {
    const { pools } = await Atop.request("GET", "/api/pools");
    const here = new Set([...this.root.querySelectorAll("[data-do=leave]")].map((button) => button.dataset.pool));
    const others = pools.filter((pool) => !here.has(pool.id));
    const select = Atop.element("select", { name: "pool" }, ...others.map((pool) => Atop.element("option", { value: pool.id }, pool.name)));
    const body = others.length ? Atop.field("Pool", select) : "It is in every pool that there is. The list of pools has a button for a new one.";
    const go = (data) => (others.length ? Atop.request("POST", `/api/pools/${data.get("pool")}/add`, { ids: [this.id] }) : Promise.resolve(null));
    const done = await Atop.ask({ title: "Put into a pool", body, button: others.length ? "Put it there" : "Close", go });
    if (done) { Atop.done("It is in the pool.", done.commit); await this.reload(); }
  }

  async leave(pool) {
    const done = await Atop.request("POST", `/api/pools/${pool}/remove`, { ids: [this.id] });
    Atop.done("It is taken out of the pool.", done.commit);
    await this.reload();
  }

  async undo(button) {
    const { commit, items } = button.dataset;
    const send = () => Atop.request("POST", "/api/undo", { commit });
    const done = items === "1" ? await send() : await Atop.ask({ title: "Undo this commit?", body: `It changed ${Atop.many(Number(items), "item")}; all of that is taken back.`, button: "Undo it", go: send });
    if (!done) return;
    Atop.toast("Undone.");
    await this.reload();
  }
}
