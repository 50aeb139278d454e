// Devices and conflicts.
Atop.page("devices", (root) => new Devices(root));

class Devices {
  constructor(root) {
    this.root = root;
    this.state = root.querySelector("#devices-state");
    this.box = root.querySelector("#invitation");
    this.code = "";
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-do]");
      if (button) this[button.dataset.do.replace("-", "_")](button);
    });
    Atop.refresh = () => Promise.all([this.refresh(), renewNavigation()]); // called after each commit
    setInterval(() => { if (!document.hidden) this.refresh(); }, 2000); // links come and go without a commit
    Atop.request("GET", "/api/devices").then((group) => this.show(group.invitation)).catch(() => {});
  }

  async refresh() {
    let text;
    try {
      const response = await fetch(`${Atop.base}/devices?part=state`, { headers: { accept: "text/html" } });
      if (!response.ok) return;
      text = await response.text();
    } catch {
      return; // the line for the connection says so
    }
    const fresh = new DOMParser().parseFromString(text, "text/html").body;
    if (fresh.innerHTML.trim() === this.state.innerHTML.trim()) return;
    const active = document.activeElement;
    const mark = this.state.contains(active) ? `[data-do="${active.dataset.do}"][data-device="${CSS.escape(active.dataset.device || "")}"]` : null;
    this.state.replaceChildren(...[...fresh.childNodes].map((node) => document.adoptNode(node)));
    if (mark) this.state.querySelector(mark)?.focus();
  }

  async act(path, body) {
    try {
      const answer = await Atop.request("POST", `/api/devices/${path}`, body);
      await this.refresh();
      return answer;
    } catch (error) {
      Atop.tell(error);
      return null;
    }
  }

  async invite() {
    const answer = await this.act("invite", {});
    if (!answer) return;
    this.code = answer.code;
    this.show(answer.invitation);
    this.box.querySelector("b")?.focus();
  }

  // Shows how an invitation stands, and looks again until it has ended.
  show(invitation) {
    clearTimeout(this.timer);
    if (!invitation || (invitation.state !== "open" && invitation.state !== "comparing" && invitation.state !== "agreed" && !this.code)) {
      this.box.hidden = true;
      return;
    }
    const number = invitation.number;
    const button = (name, text, kind = "") => Atop.element("button", { type: "button", class: kind, "data-do": name, "data-number": number }, text);
    const lines = {
      open: () => [
        this.code
          ? Atop.element("p", {}, "On the other device, type this within ", `${invitation.minutes} minute${invitation.minutes === 1 ? "" : "s"}:`)
          : Atop.element("p", {}, "A code is open: the program that asked for it shows it. Inviting again withdraws it."),
        this.code ? Atop.element("p", { class: "code" }, Atop.element("b", { tabindex: "-1" }, `atop join ${this.code}`)) : null,
        Atop.element("p", { class: "soft" }, "It is good once. A wrong guess spends it."),
        Atop.element("p", {}, button("withdraw", "Withdraw the code")),
      ],
      comparing: () => [
        Atop.element("p", {}, Atop.element("b", {}, invitation.other), " has the code. Do both devices show these digits?"),
        Atop.element("p", { class: "code" }, Atop.element("b", {}, invitation.digits)),
        Atop.element("p", { class: "soft" }, "If they differ, somebody is in between: say no, and nothing has happened."),
        Atop.element("p", {}, button("equal", "They are equal", "main"), " ", button("different", "They differ", "danger")),
      ],
      agreed: () => [Atop.element("p", {}, "Waiting for the other device to agree.")],
      paired: () => [Atop.element("p", {}, Atop.element("b", {}, invitation.other), " has joined. It is being given everything.")],
      failed: () => [Atop.element("p", { class: "problem" }, `Nobody has joined: ${invitation.problem}.`)],
    };
    const key = `${number} ${invitation.state} ${invitation.minutes}`;
    if (key !== this.shown) {
      this.shown = key;
      this.box.replaceChildren(...lines[invitation.state]().filter(Boolean));
    }
    this.box.hidden = false;
    if (invitation.state === "paired" || invitation.state === "failed") { this.code = ""; return; }
    this.timer = setTimeout(() => {
      Atop.request("GET", "/api/devices").then((group) => this.show(group.invitation)).catch(() => this.show(invitation));
    }, 500);
  }

  async equal(button) { this.answer(button, true); }

  async different(button) { this.answer(button, false); }

  async answer(button, equal) {
    const answer = await this.act("answer", { number: Number(button.dataset.number), equal });
    if (answer) this.show(answer.invitation);
  }

  async withdraw(button) {
    this.code = "";
    const answer = await this.act("withdraw", { number: Number(button.dataset.number) });
    if (answer) this.show(null);
  }

  rename(button) {
    const { device, name } = button.dataset;
    const input = Atop.element("input", { name: "name", value: name, required: true, maxlength: 60, "aria-label": "Name" });
    Atop.ask({
      title: `Rename ${name}`,
      body: input,
      button: "Rename",
      go: (data) => Atop.request("POST", "/api/devices/rename", { device, name: data.get("name") }),
    }).then(() => this.refresh());
  }

  remove(button) {
    const { device, name } = button.dataset;
    const lost = Atop.element("input", { type: "checkbox", name: "lost" });
    const body = Atop.element("div", {},
      Atop.element("p", {}, `${name} keeps the data that it has, and gets nothing more. Its links end at once.`),
      "majority" in button.dataset ? Atop.element("label", {}, lost, " It is lost for good: remove it even without a majority") : null);
    Atop.ask({
      title: `Remove ${name} from the group?`,
      body,
      button: "Remove",
      danger: true,
      go: (data) => Atop.request("POST", "/api/devices/remove", { device, lost: data.get("lost") === "on" }),
    }).then(() => this.refresh());
  }

  async take_over(button) {
    button.disabled = true;
    if (await this.act("take-over", {})) Atop.toast("This device is the master now.", { seconds: 4 });
    else button.disabled = false;
  }
}

// Settled with a click. The listener is above what is read anew after each commit.
Atop.page("conflicts", (root) => {
  const main = root.parentElement;
  if (main.dataset.listens) return;
  main.dataset.listens = "1";
  main.addEventListener("click", async (event) => {
    const button = event.target.closest('button[data-do="settle"]');
    if (!button) return;
    const section = button.closest(".conflict");
    const next = section.nextElementSibling?.querySelector("button") || section.previousElementSibling?.querySelector("button");
    for (const one of section.querySelectorAll("button")) one.disabled = true;
    try {
      const answer = await Atop.request("POST", `/api/conflicts/${button.dataset.id}`, { keep: button.dataset.keep });
      Atop.done(answer.settled ? "The conflict is settled." : "It had been settled already.", answer.commit);
      section.remove();
      (next || main).focus();
      Atop.refresh();
    } catch (error) {
      for (const one of section.querySelectorAll("button")) one.disabled = false;
      Atop.tell(error);
    }
  });
});

Split.actions.undo = async (button, split) => {
  button.disabled = true;
  try {
    await Atop.request("POST", "/api/undo", { commit: button.dataset.commit });
    Atop.toast("Undone, with a commit of its own.", { seconds: 4 });
    await split.refresh();
  } catch (error) {
    Atop.tell(error);
  }
  button.disabled = false;
};
