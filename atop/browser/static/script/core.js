// What every page shares: requests, messages, dialogs, and making elements. Text becomes text nodes, never markup.
const Atop = {
  base: document.documentElement.dataset.base || "",
  pages: {},

  // Runs `begin` for the element with data-page="name", when the document is there.
  page(name, begin) {
    Atop.pages[name] = begin;
  },

  start() {
    const menu = document.getElementById("menu");
    const side = document.getElementById("navigation");
    const show = (open) => {
      side.classList.toggle("open", open);
      menu.setAttribute("aria-expanded", String(open));
    };
    menu.addEventListener("click", () => show(!side.classList.contains("open")));
    document.addEventListener("click", (event) => {
      if (!side.contains(event.target) && !menu.contains(event.target)) show(false);
    });
    side.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { show(false); menu.focus(); }
    });
    for (const root of document.querySelectorAll("[data-page]")) {
      const begin = Atop.pages[root.dataset.page];
      if (begin) begin(root);
    }
    Atop.takeDrops();
    Atop.live.start();
  },

  // An element: Atop.element("a", {href: "/x", class: "y"}, "text", child ...). Attributes that are null are left out;
  // functions become listeners: {click: () => ...}.
  element(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") element.addEventListener(key, value);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  },

  // A request to the HTTP interface. Resolves to the JSON of the answer; rejects with an Atop.Problem.
  async request(method, path, body, options = {}) {
    const headers = { accept: "application/json" };
    let data = body;
    if (body !== undefined && !(body instanceof Blob)) {
      headers["content-type"] = "application/json";
      data = JSON.stringify(body);
    }
    let response;
    try {
      response = await fetch(Atop.base + path, { method, headers, body: data, signal: options.signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Atop.Problem(0, { error: "Offline", message: "The program that serves this page does not answer." });
    }
    let answer = {};
    try {
      answer = await response.json();
    } catch {
      answer = { error: "Unreadable", message: `The answer cannot be read (status ${response.status}).` };
    }
    if (!response.ok) throw new Atop.Problem(response.status, answer);
    return answer;
  },

  // A message at the foot of the page. `action` is {label, run}: an undo, mostly. Bad ones stay until they are closed.
  toast(text, { action = null, bad = false, seconds = 8 } = {}) {
    const box = document.getElementById("toasts");
    const close = () => toast.remove();
    const toast = Atop.element("div", { class: bad ? "toast bad" : "toast" }, Atop.element("span", { class: "toast-text" }, text));
    if (action) toast.append(Atop.element("button", { type: "button", click: () => { close(); action.run(); } }, action.label));
    toast.append(Atop.element("button", { type: "button", click: close, "aria-label": "Close this message" }, "✕"));
    while (box.children.length > 3) box.firstChild.remove();
    box.append(toast);
    if (!bad) {
      let timer = setTimeout(close, seconds * 1000);
      const hold = () => clearTimeout(timer);
      const release = () => { hold(); timer = setTimeout(close, seconds * 1000); };
      toast.addEventListener("mouseenter", hold);
      toast.addEventListener("focusin", hold);
      toast.addEventListener("mouseleave", release);
      toast.addEventListener("focusout", release);
    }
    return toast;
  },

  // Tells what went wrong; for the end of a chain: promise.catch(Atop.tell).
  tell(error) {
    if (error.name === "AbortError") return;
    Atop.toast(error.message, { bad: true });
    if (!(error instanceof Atop.Problem)) console.error(error);
  },

  // Says that something is done, with an undo of commit `commit` (an id).
  done(text, commit) {
    const run = () => Atop.request("POST", "/api/undo", { commit }).then(() => Atop.toast("Undone."), Atop.tell);
    Atop.toast(text, { action: commit ? { label: "Undo", run } : null });
  },

  // A dialog. `body` is an element or text; `go` is called with the form's data when it is confirmed, and may reject:
  // then its message is shown and the dialog stays. Resolves to what `go` gives, or undefined where it was cancelled.
  ask({ title, body, button, danger = false, go = async (data) => data }) {
    const dialog = document.getElementById("ask");
    const form = dialog.querySelector("form");
    const problem = document.getElementById("ask-problem");
    const main = form.querySelector("[type=submit]");
    document.getElementById("ask-title").textContent = title;
    document.getElementById("ask-body").replaceChildren(body ?? "");
    problem.textContent = "";
    main.textContent = button;
    main.className = danger ? "danger" : "main";
    main.disabled = false;
    return new Promise((resolve) => {
      let result;
      form.onsubmit = async (event) => {
        event.preventDefault();
        main.disabled = true;
        try {
          result = await go(new FormData(form));
          dialog.close();
        } catch (error) {
          problem.textContent = error.message;
        } finally {
          main.disabled = false;
        }
      };
      form.querySelector(".cancel").onclick = () => dialog.close();
      dialog.onclose = () => resolve(result);
      dialog.showModal();
      const first = document.getElementById("ask-body").querySelector("input, select, textarea");
      (first || main).focus();
    });
  },

  // 12 345, with narrow spaces that do not break.
  count(number) {
    return String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  },

  // "1 item", "12 345 items".
  many(number, what) {
    return `${Atop.count(number)} ${what}${number === 1 ? "" : "s"}`;
  },

  size(bytes) {
    if (bytes === 1) return "1 byte";
    const units = ["bytes", "KB", "MB", "GB", "TB"];
    let unit = 0;
    while (bytes >= 999.5 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
    return `${unit && bytes < 99.95 ? bytes.toFixed(1) : bytes.toFixed(0)} ${units[unit]}`;
  },

  // Calls `run` once after the last of several calls, `wait` milliseconds later.
  debounced(run, wait) {
    let timer = 0;
    return (...given) => {
      clearTimeout(timer);
      timer = setTimeout(() => run(...given), wait);
    };
  },

  // Calls `run` soon after a call, and not again before it has ended and `wait` milliseconds have passed: however many
  // calls come, what is shown is never older than that.
  throttled(run, wait) {
    let busy = false;
    let wanted = false;
    const turn = async () => {
      if (busy) { wanted = true; return; }
      busy = true;
      do {
        wanted = false;
        await new Promise((resolve) => setTimeout(resolve, wait));
        try { await run(); } catch (error) { Atop.tell(error); }
      } while (wanted);
      busy = false;
    };
    return turn;
  },

  Problem: class extends Error {
    constructor(status, answer) {
      super(answer.message || "This did not work.");
      this.status = status;
      this.answer = answer;
    }
  },
};
window.Atop = Atop;
