// Keeps the list of deaths up to date. Without it the page is whole.
// It asks the API whether there is something new, and only then for the page, of which it takes the new rows as the daemon made them.
"use strict";
(() => {
  const body = () => document.querySelector("#deaths tbody");
  const live = document.getElementById("live");
  const pause = document.getElementById("pause");
  if (!body() || !body().dataset.feed || !live || !pause) {
    return;
  }
  const EVERY = 2000;
  // How the daemon fares is looked at each so many times.
  const STATE = 15;
  const PATIENCE = 10000;
  let { last, run } = body().dataset;
  let paused = false;
  let turn = 0;

  const say = (words) => {
    if (live.textContent !== words) {
      live.textContent = words;
    }
  };

  const feed = () => {
    const address = new URL(body().dataset.feed, location.origin);
    address.searchParams.set("after", last);
    address.searchParams.set("limit", "1");
    return address;
  };

  // The page as a document, which runs no script.
  const page = () =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("GET", location.href);
      request.responseType = "document";
      request.timeout = PATIENCE;
      request.onload = () =>
        request.status === 200 && request.response ? resolve(request.response) : reject(new Error());
      request.onerror = request.ontimeout = () => reject(new Error());
      request.send();
    });

  const take = (found) => {
    const theirs = found.querySelector("#deaths tbody");
    if (!theirs) {
      return;
    }
    ({ last, run } = theirs.dataset);
    const ours = body();
    const fresh = [...theirs.rows].filter((row) => !document.getElementById(row.id));
    fresh.reverse().forEach((row) => ours.prepend(document.adoptNode(row)));
    const limit = Number(ours.dataset.limit);
    while (ours.rows.length > limit && !ours.lastElementChild.contains(document.activeElement)) {
      ours.lastElementChild.remove();
    }
    if (fresh.length > 0) {
      document.querySelector("#deaths-caption ~ .nothing, .scroll + .nothing")?.remove();
      const newest = ours.rows[0];
      const words = `${newest.cells[1].textContent}: ${newest.cells[2].textContent}`;
      say(fresh.length === 1 ? `New death. ${words}` : `${fresh.length} new deaths. The newest, ${words}`);
    }
    const host = document.getElementById("host");
    const now = found.getElementById("host");
    if (host && now && host.textContent !== now.textContent && !host.contains(document.activeElement)) {
      const open = host.querySelector("details")?.open ?? false;
      const next = document.adoptNode(now);
      next.querySelector("details")?.toggleAttribute("open", open);
      host.replaceWith(next);
    }
  };

  const look = async () => {
    const answer = await fetch(feed(), { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) {
      throw new Error();
    }
    const news = await answer.json();
    turn += 1;
    if (news.run !== run || news.deaths.length > 0 || turn % STATE === 0) {
      take(await page());
    } else {
      last = String(news.last);
    }
    if (live.dataset.lost) {
      delete live.dataset.lost;
      say("The daemon answers again.");
    }
  };

  const again = async () => {
    if (!paused && !document.hidden) {
      try {
        await look();
      } catch {
        live.dataset.lost = "yes";
        say("The daemon does not answer. Trying again.");
      }
    }
    setTimeout(again, EVERY);
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    say(paused ? "Updates are paused." : "Updates go on.");
  });
  say("This list updates by itself.");
  setTimeout(again, EVERY);
})();
