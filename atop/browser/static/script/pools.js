// The list of pools: it follows what happens elsewhere.
Atop.page("pools", () => {
  Atop.onCommit(Atop.debounced(() => Atop.refresh(), 150));
});

// Reads the present page again and puts its main part, and the navigation, in place of the old ones, without losing the
// place. What has data-page in it begins anew.
Atop.refresh = async () => {
  let text;
  try {
    const response = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!response.ok) return;
    text = await response.text();
  } catch {
    return; // the line for the connection says so
  }
  const fresh = new DOMParser().parseFromString(text, "text/html");
  for (const selector of ["[data-page]", "#navigation ul"]) {
    const olds = document.querySelectorAll(selector);
    const news = fresh.querySelectorAll(selector);
    if (olds.length !== news.length) continue;
    olds.forEach((old, place) => {
      if (old.outerHTML === news[place].outerHTML || old.contains(document.activeElement)) return;
      old.replaceWith(document.adoptNode(news[place]));
    });
  }
};
