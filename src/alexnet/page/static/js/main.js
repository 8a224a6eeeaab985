import { api } from "./api.js";
import { LANGUAGES, preferredLanguage, remember, remembered, speak, spokenLanguage, t } from "./text.js";
import { announce, busyLine, faultNotice, h, icon } from "./parts.js";
import { seeAct } from "./see.js";
import { unitAct } from "./unit.js";
import { teachAct } from "./teach.js";
import { searchAct } from "./search.js";
import { motionAct } from "./motion.js";

// Start, addresses, language and theme. The acts do the rest.

const ACTS = { see: seeAct, unit: unitAct, teach: teachAct, search: searchAct, motion: motionAct };
const page = { model: null, session: beginning(), end: () => {}, turn: 0 };

/** What the acts share while the page is open: the present picture, where somebody stands in the network, and what is switched off. */
function beginning() {
  return { picture: null, stage: null, channels: {}, off: new Set(), without: new Set() };
}

/** `/unit/conv5/117` -> {act: "unit", layer: "conv5", channel: 117}; without a server the address stands behind the #. */
function readAddress() {
  const path = api.live ? location.pathname : location.hash.slice(1);
  const [act, layer, channel] = path.split("/").filter(Boolean).map(decodeURIComponent);
  if (act === "unit" && layer !== undefined) return { act, layer, channel: Number(channel) };
  return { act: act in ACTS && act !== "unit" ? act : "see" };
}

/** What a link to an address of the page says in `href`. */
function href(address) {
  return api.live ? address : `#${address}`;
}

function go(address) {
  if (api.live) history.pushState(null, "", address);
  else location.hash = address; // its event shows the act
  if (api.live) show({ moved: true });
}

function shownActs() {
  const isUseful = {
    see: true,
    teach: api.live,
    search: api.live && page.model?.index !== null,
    motion: api.live && page.model?.can_answer,
  };
  return Object.keys(isUseful).filter((act) => isUseful[act]);
}

function drawFrame() {
  const { act } = readAddress();
  const current = act === "unit" ? "see" : act;
  const other = LANGUAGES.find((language) => language !== spokenLanguage());
  const dark = document.documentElement.dataset.theme === "dark";
  document.getElementById("skip").textContent = t("page.skip");
  document.getElementById("top").replaceChildren(
    h("a", { class: "mark", href: href("/see"), "data-go": "/see" }, "alexnet", h("span", { class: "mark-model" }, page.model?.name ?? "")),
    h(
      "nav",
      { class: "acts", "aria-label": t("page.acts") },
      shownActs().map((name) => h("a", { href: href(`/${name}`), "data-go": `/${name}`, "aria-current": name === current ? "page" : null }, t(`nav.${name}`))),
    ),
    h(
      "div",
      { class: "tools" },
      h("button", { type: "button", class: "tool", lang: other === "zh" ? "zh-Hans" : other, "data-part": "language", onclick: () => changeLanguage(other) }, t("page.other_language")),
      h(
        "button",
        { type: "button", class: "tool", "aria-label": t(dark ? "page.light" : "page.dark"), title: t(dark ? "page.light" : "page.dark"), "data-part": "theme", onclick: () => changeTheme(dark ? "light" : "dark") },
        icon(dark ? "light" : "dark"),
      ),
    ),
  );
  document.getElementById("foot").replaceChildren(h("p", {}, t(api.live ? "page.foot" : "page.foot_exported")));
}

async function changeLanguage(language) {
  await speak(language);
  remember("language", language);
  await show({});
  document.querySelector('[data-part="language"]')?.focus();
}

function changeTheme(theme) {
  remember("theme", theme);
  applyTheme();
  drawFrame();
  document.querySelector('[data-part="theme"]')?.focus();
}

function applyTheme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const wish = remembered("theme") ?? (isDark ? "dark" : "light");
  document.documentElement.dataset.theme = wish === "dark" ? "dark" : "light";
}

/** Draw the act of the present address. `moved`: somebody went there, so that focus and scroll begin anew. */
async function show({ moved = false }) {
  const turn = (page.turn += 1);
  page.end();
  page.end = () => {};
  const main = document.getElementById("main");
  const address = readAddress();
  drawFrame();
  document.title = `${t(`nav.${address.act === "unit" ? "see" : address.act}`)} · alexnet`;
  const context = { model: page.model, t, api, address, go, href, language: spokenLanguage(), session: page.session, announce };
  let end = () => {};
  try {
    if (moved) {
      main.replaceChildren();
      window.scrollTo(0, 0);
      main.focus({ preventScroll: true });
    }
    end = await ACTS[address.act](main, context);
  } catch (fault) {
    if (!fault.kind) console.error(fault); // not a refusal: a fault of the page itself
    main.replaceChildren(h("h1", {}, t("fault.title")), faultNotice(fault));
  }
  if (turn === page.turn) page.end = end;
  else end(); // somebody went on meanwhile
}

async function start() {
  applyTheme();
  const main = document.getElementById("main");
  await speak(preferredLanguage());
  drawFrame();
  main.replaceChildren(busyLine(t("page.opening")));
  try {
    await api.ready();
    page.model = await api.json("/api/model");
  } catch (fault) {
    main.replaceChildren(faultNotice(fault));
    return;
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-go]");
    if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.dataset.go);
  });
  document.addEventListener("click", (event) => {
    if (event.target.id !== "skip") return;
    event.preventDefault();
    main.focus();
  });
  window.addEventListener(api.live ? "popstate" : "hashchange", () => show({ moved: true }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    applyTheme();
    drawFrame();
  });
  await show({});
}

start();
