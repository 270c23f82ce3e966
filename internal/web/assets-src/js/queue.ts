// The analyst's queue: one row is selected, its detail stands in the right pane,
// and every step has a key. Without this script the same page works by links and
// forms.
export function queue(htmx: any): void {
  const body = document.getElementById("rows");
  const pane = document.getElementById("detail");
  if (!body || !pane) return;
  const narrow = window.matchMedia("(max-width: 899px)");
  const rows = () => Array.from(body.querySelectorAll<HTMLTableRowElement>("tr[data-alert]"));
  let selected = body.querySelector<HTMLTableRowElement>("tr[aria-current]")?.dataset.alert || "";
  let loading = 0;

  const mark = () => {
    rows().forEach((row) => {
      if (row.dataset.alert === selected) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    });
  };
  const load = (id: string) => {
    clearTimeout(loading);
    // Holding j down must not ask for every alert on the way.
    loading = window.setTimeout(() => {
      htmx.ajax("GET", "/alerts/" + encodeURIComponent(id) + "?pane=1", { target: "#detail", swap: "innerHTML" });
    }, 90);
  };
  const select = (row: HTMLTableRowElement | undefined) => {
    if (!row || !row.dataset.alert) return;
    selected = row.dataset.alert;
    mark();
    row.scrollIntoView({ block: "nearest" });
    load(selected);
  };
  const move = (by: number) => {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.dataset.alert === selected);
    select(all[at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + by))]);
  };

  body.addEventListener("click", (event) => {
    const target = event.target as HTMLElement;
    if (target.closest("input, label, button") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const row = target.closest<HTMLTableRowElement>("tr[data-alert]");
    if (!row || narrow.matches) return;
    event.preventDefault();
    select(row);
  });

  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.closest("input:not([type=checkbox]), textarea, select")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const press = (key: string) => {
      const el = pane.querySelector<HTMLElement>('[data-key="' + key + '"]');
      if (!el) return;
      el.click();
      const details = el.closest("details");
      if (details && details.open) details.querySelector<HTMLElement>("select, input, textarea")?.focus();
    };
    switch (event.key) {
      case "j": case "ArrowDown": if (event.key === "j" || target === document.body) { move(1); event.preventDefault(); } break;
      case "k": case "ArrowUp": if (event.key === "k" || target === document.body) { move(-1); event.preventDefault(); } break;
      case "a": case "e": case "c": press(event.key); event.preventDefault(); break;
      case "o": location.href = "/alerts/" + encodeURIComponent(selected); break;
      case "x": {
        const box = rows().find((row) => row.dataset.alert === selected)?.querySelector<HTMLInputElement>("input[type=checkbox]");
        if (box) box.checked = !box.checked;
        break;
      }
      case "/": document.getElementById("filter-text")?.focus(); event.preventDefault(); break;
    }
  });

  // Opening a <details> by key or mouse puts the cursor in its first field.
  pane.addEventListener("toggle", (event) => {
    const details = event.target as HTMLDetailsElement;
    if (details.open) details.querySelector<HTMLElement>("select, input:not([type=hidden]), textarea")?.focus();
  }, true);

  // Live updates. A row that no longer belongs here leaves; the dot says whether
  // the line to the centre is open.
  const live = document.getElementById("live");
  const say = (state: string, text: string) => {
    if (!live) return;
    live.dataset.state = state;
    const label = live.querySelector("span");
    if (label && label.textContent !== text) label.textContent = text;
  };
  document.addEventListener("htmx:sse:after:connection", () => say("on", "Live"));
  document.addEventListener("htmx:sse:error", () => say("off", "Reconnecting"));
  document.addEventListener("htmx:sse:close", () => say("off", "Not live"));
  document.addEventListener("htmx:sse:before:connection", (event: any) => {
    if (event.detail?.connection?.attempt > 0) say("off", "Reconnecting");
  });
  document.addEventListener("gone", (event: any) => {
    const row = document.getElementById("alert-" + event.detail.data);
    if (row) row.remove();
  });
  document.addEventListener("counts", (event: any) => {
    const counts = JSON.parse(event.detail.data);
    document.querySelectorAll<HTMLElement>("[data-count]").forEach((el) => {
      const n = counts[el.dataset.count!];
      if (n !== undefined && el.textContent !== n) el.textContent = n;
    });
    document.querySelectorAll<HTMLElement>("[data-words]").forEach((el) => {
      const n = counts[el.dataset.words!];
      if (n !== undefined) el.textContent = (n === "1" ? el.dataset.single : el.dataset.many) || "";
    });
    if (counts.total !== undefined) document.title = document.title.replace(/\([^)]*\)/, "(" + counts.total + ")");
  });
  document.addEventListener("resync", () => {
    // Nobody loses what they are writing to a reload.
    if ((document.activeElement as HTMLElement | null)?.closest("#detail form, .drop")) say("off", "Behind: reload the page");
    else location.reload();
  });
  document.addEventListener("htmx:sse:after:message", () => {
    const empty = document.getElementById("empty");
    if (empty) empty.hidden = rows().length > 0;
    mark();
  });
  document.addEventListener("htmx:after:swap", mark);
}
