// News of commits. A page that is hidden does not listen (a browser opens few connections to one server); when it is
// seen again it reads anew what it shows.
Atop.live = {
  source: null,
  listeners: [],
  state: "waiting",

  start() {
    document.addEventListener("visibilitychange", () => (document.hidden ? Atop.live.stop() : Atop.live.connect()));
    window.addEventListener("pagehide", () => Atop.live.stop());
    window.addEventListener("pageshow", (event) => { if (event.persisted) Atop.live.connect(); });
    if (!document.hidden) Atop.live.connect();
  },

  stop() {
    if (Atop.live.source) Atop.live.source.close();
    Atop.live.source = null;
  },

  connect() {
    Atop.live.stop();
    const source = (Atop.live.source = new EventSource(`${Atop.base}/api/events`));
    let last = 0; // when the server was heard last
    source.addEventListener("hello", (event) => {
      const head = JSON.parse(event.data).head;
      const missed = Atop.live.head !== undefined && head !== Atop.live.head;
      Atop.live.head = head;
      Atop.live.show("live", "Up to date");
      if (missed) Atop.live.tell(null);
    });
    source.addEventListener("reset", (event) => {
      Atop.live.head = JSON.parse(event.data).head;
      Atop.live.tell(null);
    });
    source.addEventListener("commit", (event) => {
      const commit = JSON.parse(event.data);
      Atop.live.head = commit.number;
      Atop.live.tell(commit);
    });
    source.onerror = () => {
      if (Atop.live.source !== source) return;
      Atop.live.show("lost", "Not connected: trying again");
      if (source.readyState !== EventSource.CLOSED) return;
      Atop.live.stop(); // refused: not tried again by itself
      setTimeout(() => Atop.live.check(), 2000);
    };
  },

  // After a refusal: is it the server, or have we been signed out?
  async check() {
    try {
      await Atop.request("GET", "/api/pools");
      Atop.live.connect();
    } catch (error) {
      if (error.status === 401) Atop.live.show("lost", "Signed out: open the address that the program prints");
      else setTimeout(() => Atop.live.check(), 2000);
    }
  },

  show(state, text) {
    const line = document.getElementById("connection");
    if (Atop.live.state === "lost" && state === "live") Atop.toast("Connected again.", { seconds: 3 });
    if (Atop.live.state !== "lost" && state === "lost") Atop.toast(`${text}.`, { seconds: 4 });
    Atop.live.state = state;
    line.dataset.state = state;
    line.firstElementChild.textContent = text;
  },

  tell(commit) {
    for (const listener of Atop.live.listeners) listener(commit);
  },
};

// Calls `listener` with each commit ({number, label, device, items}), or with null where anything may have changed:
// `items` is a list of ids, or null for many.
Atop.onCommit = (listener) => Atop.live.listeners.push(listener);
