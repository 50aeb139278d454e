"""The tabular data browser: a store in a web page.

    from atop.browser import app
    browser = app(store)               # an ASGI application; browser.first_url("http://127.0.0.1:4780") opens it

`atop browse` serves it on this machine, and a `replication.Device` does with `serve_in_thread`. It can be mounted in
an application of one's own: `Mount("/data", app(store, hosts=["example.org"]))`.

Promises: nothing is answered without the token of the first URL, or the cookie that it was exchanged for; a page of
another site, or of another port, can neither read nor change anything (`security`); data is never markup, script or
a path; every body has a limit; an error is a sentence, never a traceback. It never loads anything from elsewhere.

How a view is added
===================

1. A module `atop/browser/NAME.py` with `VIEW = View(routes=[...], entries=[...])` (`views.View`), named in
   `application.VIEWS`. Its handlers are plain functions, run in a thread, that take a `views.Call`:

       def show(call: Call) -> Response:
           return call.page("notes.html", title="Notes", notes=...)

       def rename(call: Call) -> Any:            # what it returns becomes JSON
           body = call.body                      # a dict, checked for size and shape
           ...

       VIEW = View(
           routes=[page("/notes", show), action("/api/notes/{item_id:int}", rename, methods=["PATCH"])],
           entries=[Entry("Notes", "/notes", "notes")],
       )

   `call.store` is the store, `call.device` the device or None, `call.path["item_id"]` a part of the path,
   `call.query` the query. Ids and versions are text in JSON: JavaScript's numbers lose digits of them.
   Raise `Refusal(status, message)` for what is wrong with the request; every `AtopError` becomes a page, or JSON, by
   itself (`problems`). Changes that a person edited send the item's version back, and get 409 with the new values.

2. A template `templates/NAME.html` that extends `base.html` and fills `main`. Everything is escaped; there is no
   `|safe`. Links begin with `{{ base }}`, where the application may be mounted. No inline scripts, styles or `style=`
   attributes: the content security policy forbids them (a script may set `element.style.width`).

3. A part of the script, `static/script/NAME.js`, and of the style sheet, `static/style/NAME.css`, named in
   `assets.SCRIPT` and `assets.STYLE`. All parts together are one script in one function scope. `Atop.page("NAME",
   (root) => {...})` runs for the element that has `data-page="NAME"`. `core.js` and `tools.js` have what pages share:
   `Atop.request`, `Atop.toast`, `Atop.done`, `Atop.ask`, `Atop.element`, `Atop.onCommit`. After each commit a page is
   read anew, and the element with `data-page` is exchanged and begins again (`Atop.refresh` in `pools.js`), unless it
   has the keyboard's focus, or `data-live`: then it follows commits itself. Colours and sizes come from the tokens in
   `style/tokens.css` alone.

4. An icon, if it is in the navigation, in `templates/icons.html`.

The HTTP interface is described in docs/browser.md.
"""

from atop.browser.application import Browser, app
from atop.browser.serving import Server, serve, serve_in_thread

__all__ = ["Browser", "Server", "app", "serve", "serve_in_thread"]
