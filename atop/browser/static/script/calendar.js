// The calendar: pages are swapped in place, arrow keys go from day to day, events open in a dialog.
Atop.page("calendar", (root) => new Calendar(root));

class Calendar {
  constructor(root) {
    this.root = root;
    this.dialog = document.getElementById("event-dialog");
    this.tellZone();
    root.addEventListener("click", (event) => this.clicked(event));
    document.addEventListener("keydown", (event) => this.pressed(event));
    window.addEventListener("popstate", () => this.load(location.href, { push: false }));
    this.dialog.addEventListener("click", (event) => this.inDialog(event));
    this.dialog.addEventListener("close", () => { // what had the focus may have been drawn anew meanwhile
      if (!root.contains(document.activeElement)) root.querySelector(this.opener)?.focus({ preventScroll: true });
    });
    Atop.refresh = () => Promise.all([this.refresh(), renewNavigation()]); // called after each commit
    this.lay(true);
  }

  // Times are shown by this browser's clock: the server is told which that is.
  tellZone() {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!zone || zone === this.root.dataset.zone || sessionStorage.getItem("zone") === zone) return;
    sessionStorage.setItem("zone", zone);
    document.cookie = `atop_zone=${encodeURIComponent(zone)}; path=${Atop.base || "/"}; samesite=strict; max-age=31536000`;
    this.load(location.href, { push: false });
  }

  // Reads the present page again; while another one is being opened, that one, once it is there.
  async refresh() {
    if (this.going) this.again = true;
    else await this.load(location.href, { push: false });
  }

  async load(href, options = {}) {
    if (options.push === false) { await this.put(href, options); return; }
    const going = (this.going = {});
    await this.put(href, options);
    if (this.going !== going) return; // on to another page meanwhile
    this.going = null;
    if (this.again) { this.again = false; await this.refresh(); }
  }

  async put(href, { push = true, focus = null }) {
    if (this.loading) this.loading.abort();
    const loading = (this.loading = new AbortController());
    let text;
    let address;
    try {
      const response = await fetch(href, { headers: { accept: "text/html" }, signal: loading.signal });
      if (!response.ok) { if (push) location.href = href; return; }
      text = await response.text();
      address = response.url;
    } catch (error) {
      if (error.name !== "AbortError") Atop.toast("The program that serves this page does not answer.", { bad: true });
      return;
    }
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.querySelector('[data-page="calendar"]');
    if (!fresh || this.loading !== loading) return;
    if (push) history.pushState({}, "", address);
    const active = document.activeElement;
    const inside = this.root.contains(active);
    const mark = focus ? `.day[data-date="${focus}"]` : inside ? selectorOf(active) : null;
    const week = this.root.querySelector(".week");
    const top = week ? week.scrollTop : null;
    const sameView = fresh.dataset.view === this.root.dataset.view;
    document.title = page.title;
    Object.assign(this.root.dataset, fresh.dataset);
    this.root.replaceChildren(...[...fresh.childNodes].map((node) => document.adoptNode(node)));
    this.lay(!sameView);
    if (sameView && top !== null) this.root.querySelector(".week").scrollTop = top;
    if (mark) this.root.querySelector(mark)?.focus({ preventScroll: !focus });
  }

  // Puts the events of a week where their time is.
  lay(scroll) {
    const hours = this.root.querySelector(".hours");
    if (!hours) return;
    let first = 8 * 60;
    for (const event of hours.querySelectorAll(".event")) {
      const { begin, end, column, columns } = event.dataset;
      const length = Math.max(30, end - begin);
      first = Math.min(first, Number(begin));
      event.style.setProperty("--top", begin / 1440);
      event.style.setProperty("--height", length / 1440);
      event.style.setProperty("--left", column / columns);
      event.style.setProperty("--width", 1 / columns);
      event.classList.toggle("low", length < 45);
    }
    const today = hours.querySelector(".today");
    if (today && hours.dataset.now) {
      const line = Atop.element("div", { class: "now", "aria-hidden": "true" });
      line.style.setProperty("--top", hours.dataset.now / 1440);
      today.append(line);
    }
    if (scroll) hours.parentElement.scrollTop = (hours.offsetHeight * (Math.max(first, 6 * 60) - 20)) / 1440;
  }

  clicked(event) {
    const link = event.target.closest("a");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    if (link.dataset.event) { event.preventDefault(); this.opener = selectorOf(link); this.open(link.href); return; }
    if (link.matches("[data-go], .day, .others")) { event.preventDefault(); this.load(link.href); }
  }

  async open(href) {
    const url = new URL(href);
    url.searchParams.set("part", "pane");
    try {
      const response = await fetch(url, { headers: { accept: "text/html" } });
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const card = page.querySelector("article") || page.querySelector("main");
      this.dialog.firstElementChild.replaceChildren(document.adoptNode(card));
      this.dialog.showModal();
      this.dialog.querySelector('[data-do="close"]')?.focus();
    } catch {
      Atop.toast("The program that serves this page does not answer.", { bad: true });
    }
  }

  async inDialog(event) {
    const button = event.target.closest("button[data-do]");
    if (event.target === this.dialog || button?.dataset.do === "close") this.dialog.close();
    if (button?.dataset.do !== "delete") return;
    try {
      const answer = await Atop.request("POST", "/api/items/delete", { ids: [button.dataset.id] });
      this.dialog.close();
      Atop.done("The event is deleted.", answer.commit);
      await this.load(location.href, { push: false });
    } catch (error) {
      Atop.tell(error);
    }
  }

  pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input, select, textarea") || document.getElementById("navigation").contains(event.target)) return;
    const go = { PageUp: "previous", PageDown: "next", t: "today", m: "month", w: "week", d: "day" }[event.key];
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -7, ArrowDown: 7 };
    if (go) {
      event.preventDefault();
      const day = this.root.contains(document.activeElement) && document.activeElement.closest("td, section")?.querySelector(".day");
      const date = day ? day.dataset.date : null; // another view of the day that has the focus
      const own = date && { month: `month/${date.slice(0, 7)}`, week: `week/${date}`, day: `day/${date}` }[go];
      this.load(own ? `${Atop.base}/calendar/${own}` : this.root.querySelector(`[data-go="${go}"]`).href, { focus: own ? date : null });
      return;
    }
    const view = this.root.dataset.view;
    if (!(event.key in steps) || (view !== "month" && Math.abs(steps[event.key]) > 1)) return;
    event.preventDefault();
    const here = document.activeElement.closest("td, section")?.querySelector(".day") || this.root.querySelector('.day[aria-current="date"]');
    const date = here && this.root.contains(document.activeElement) ? here.dataset.date : null;
    if (!date && view !== "day") {
      (here || this.root.querySelector(`.day[data-date="${this.root.dataset.day}"]`) || this.root.querySelector(".day")).focus();
      return;
    }
    const next = moved(date || this.root.dataset.day, steps[event.key]);
    const there = this.root.querySelector(`.day[data-date="${next}"]`);
    if (there && view !== "day") { there.focus(); return; }
    const path = view === "month" ? `month/${next.slice(0, 7)}` : `${view}/${next}`;
    this.load(`${Atop.base}/calendar/${path}`, { focus: next });
  }
}

// The day so many days after another, both as 2025-05-12.
function moved(date, days) {
  const moment = new Date(`${date}T12:00:00Z`);
  moment.setUTCDate(moment.getUTCDate() + days);
  return moment.toISOString().slice(0, 10);
}

// How an element of the calendar is found again after it was drawn anew.
function selectorOf(element) {
  if (element.dataset.date) return `.day[data-date="${element.dataset.date}"]`;
  if (element.dataset.go) return `[data-go="${element.dataset.go}"]`;
  if (element.dataset.event) return `[href="${CSS.escape(element.getAttribute("href"))}"]`;
  return null;
}

// The page of one event, without the calendar around it.
Atop.page("event", (root) => {
  root.querySelector('[data-do="close"]').addEventListener("click", () => { location.href = `${Atop.base}/calendar`; });
  root.querySelector('[data-do="delete"]').addEventListener("click", async (event) => {
    try {
      await Atop.request("POST", "/api/items/delete", { ids: [event.currentTarget.dataset.id] });
      location.href = `${Atop.base}/calendar`;
    } catch (error) {
      Atop.tell(error);
    }
  });
});
