// The list of pools: it follows what happens elsewhere; new ones are made here.
Atop.page("pools", (root) => {
  root.querySelector("[data-do=import]").addEventListener("click", Atop.chooseFiles);
  root.querySelector("[data-do=create]").addEventListener("click", () => {
    const name = Atop.element("input", { name: "name", autocomplete: "off", required: true, maxlength: "300" });
    const indexes = Atop.element("input", { name: "indexes", autocomplete: "off", placeholder: "title, year" });
    const body = Atop.element("div", {}, Atop.field("Name", name), Atop.field("Attributes to order its items by, with commas between them (more can be added later)", indexes));
    const go = (data) => Atop.request("POST", "/api/pools", { name: data.get("name"), indexes: data.get("indexes").split(",").map((one) => one.trim()).filter((one) => one) });
    Atop.ask({ title: "New pool", body, button: "Make it", go }).then((made) => { if (made) location.href = `${Atop.base}/pools/${made.id}`; });
  });
});

// Reads the present page again and puts its main part, and the navigation, in place of the old ones, without losing the
// place. What has data-page in it begins anew; what has data-live
// follows commits by itself, and is left alone.
Atop.refresh = async () => {
  let text;
  try {
    const response = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!response.ok) return;
    text = await response.text();
  } catch {
    return; // the line for the connection says so
  }
  const read = new DOMParser().parseFromString(text, "text/html");
  for (const selector of ["[data-page]", "#navigation ul"]) {
    const olds = document.querySelectorAll(selector);
    const news = read.querySelectorAll(selector);
    if (olds.length !== news.length) continue;
    olds.forEach((old, place) => {
      if (old.dataset.live !== undefined || old.outerHTML === news[place].outerHTML || old.contains(document.activeElement)) return;
      const fresh = document.adoptNode(news[place]);
      old.replaceWith(fresh);
      if (fresh.dataset.page) Atop.pages[fresh.dataset.page]?.(fresh);
    });
  }
};

// Pages that read themselves again after each commit: a burst of commits is one reading.
Atop.onCommit(Atop.throttled(() => Atop.refresh(), 120));
