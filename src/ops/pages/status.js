// Fetches the page again every few seconds, and replaces the parts that have changed.
"use strict";

const INTERVAL = 3000; // milliseconds
const live = document.getElementById("live");

// Replaces a part. A link that has the focus keeps it, and tables keep their scroll position.
function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const scrolled = [...old.querySelectorAll(".wide")].map((box) => box.scrollLeft);
  old.replaceWith(fresh);
  fresh.querySelectorAll(".wide").forEach((box, at) => { box.scrollLeft = scrolled[at] || 0; });
  if (focused !== null) {
    [...fresh.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
  }
}

// Whether the user fills in a form or selects text in a part. Such a part is not replaced.
function isInUse(part) {
  if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return true;
  const selection = document.getSelection();
  return selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode);
}

function show(page) {
  const old = document.getElementById("verdict");
  const fresh = page.getElementById("verdict");
  if (old.textContent !== fresh.textContent) old.innerHTML = fresh.innerHTML;
  old.className = fresh.className;
  const main = document.getElementById("main");
  const parts = [...main.children];
  const freshParts = [...page.getElementById("main").children];
  freshParts.forEach((part, at) => {
    const shown = parts[at];
    if (shown === undefined) main.append(part);
    else if (shown.innerHTML !== part.innerHTML && !isInUse(shown)) replace(shown, part);
  });
  parts.slice(freshParts.length).forEach((part) => part.remove());
  live.textContent = page.getElementById("live").textContent;
}

async function refresh() {
  try {
    if (!document.hidden) {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      document.documentElement.classList.remove("lost");
    }
  } catch (error) {
    document.documentElement.classList.add("lost");
    live.textContent = `not reached (${error.message}); tried again`;
  }
  setTimeout(refresh, INTERVAL);
}

setTimeout(refresh, INTERVAL);
