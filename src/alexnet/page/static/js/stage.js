import { api } from "./api.js";
import { formatFigure, formatNumber, formatPercent, t } from "./text.js";
import { h, segmented } from "./parts.js";
import { greyOf, inkTable, paintInk, tileOf } from "./picture.js";
import { kindText, shapeText } from "./map.js";

// A stage: what it is made of, why its shape is what it is, and its channels on the present picture.

const FIRST = 96; // tiles that are shown before "show all"
const SUMS = /[(\d][\d\s()²+×/.,−]*\s=\s[\d.,]*\d/g; // arithmetic inside a sentence

/** A sentence with its arithmetic set in figures. */
function withSums(sentence) {
  const pieces = [];
  let end = 0;
  sentence = sentence.replace(/(?<=\d) x (?=\d)/g, " × ").replace(/(?<=\d) - (?=\d)/g, " − ");
  for (const match of sentence.matchAll(SUMS)) {
    pieces.push(sentence.slice(end, match.index), h("span", { class: "figures sum" }, match[0]));
    end = match.index + match[0].length;
  }
  return h("p", {}, ...pieces, sentence.slice(end));
}

function fact(name, value, note = null) {
  return h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, value, note ? h("span", { class: "fact-note" }, note) : null));
}

/** What a stage is made of, in figures and words. */
export function stageFacts(model, stage, language) {
  const share = (part, whole) => (whole > 0 ? t("stage.share", { percent: formatPercent(part / whole) }) : null);
  const padding = stage.overhang ? t("stage.overhang", { padding: stage.padding, overhang: stage.overhang }) : formatNumber(stage.padding ?? 0);
  const derivation = [stage.derivation, stage.costs].map((words) => words?.[language] ?? words?.en).filter(Boolean);
  return [
    h(
      "dl",
      { class: "facts" },
      fact(t("stage.shape"), shapeText(stage.shape)),
      stage.kernel ? fact(t("stage.kernel"), `${stage.kernel} × ${stage.kernel}`) : null,
      stage.stride ? fact(t("stage.stride"), formatNumber(stage.stride)) : null,
      stage.kernel ? fact(t("stage.padding"), padding) : null,
      stage.field ? fact(t("stage.field"), `${stage.field.size} × ${stage.field.size}`) : null,
      stage.parameters > 0 ? fact(t("stage.parameters"), formatNumber(stage.parameters), share(stage.parameters, model.parameters)) : null,
      stage.multiply_adds > 0 ? fact(t("stage.multiply_adds"), formatNumber(stage.multiply_adds), share(stage.multiply_adds, model.multiply_adds)) : null,
    ),
    derivation.length > 0 ? h("div", { class: "derivation" }, h("h3", {}, t(stage.shape.length === 3 ? "stage.why_shape" : "stage.why")), derivation.map(withSums)) : null,
  ];
}

/** Which tower a channel belongs to; null in a network of one, and in the last layer, which reads both. */
export function towerOf(model, stage, channel) {
  const isLast = stage === model.stages[model.stages.length - 1];
  if (model.towers !== 2 || isLast || stage.kind === "input") return null;
  return Math.floor((2 * channel) / stage.shape[0]);
}

export function towerText(tower) {
  return t(tower === 0 ? "tower.first" : "tower.second");
}

/**
 * The channels of a stage on a picture: a tile each, the stronger the darker. `onchoose(channel)`. Returns {element, choose(channel)}.
 * Of a layer without maps, a tile is one value.
 */
export async function channelGrid({ context, stage, picture, chosen, onchoose, signal }) {
  const { model, href, session } = context;
  const path = `/api/pictures/${picture}/maps/${stage.name}`;
  const [about, image] = await Promise.all([api.json(path, { signal }), api.load(`${path}.png`)]);
  const sheet = greyOf(image);
  const [height, width] = about.tile;
  const num = stage.shape[0];
  const isDense = height * width === 1;
  const side = isDense ? 14 : height >= 40 ? 76 : height >= 20 ? 62 : height >= 10 ? 48 : 36;
  const state = { chosen, order: session.order ?? "number", isWhole: false };
  const tiles = new Map();
  const groups = h("div", { class: "stack" });

  function paint(channel, canvas) {
    paintInk(canvas, tileOf(sheet, about, channel), width, inkTable(towerOf(model, stage, channel)));
  }

  function tile(channel) {
    const canvas = h("canvas", { class: "tile-map", "aria-hidden": "true" });
    paint(channel, canvas);
    const address = `/unit/${stage.name}/${channel}`;
    const off = session.off.has(`${stage.name}.${channel}`);
    const link = h(
      "a",
      {
        href: href(address),
        class: `tile${off ? " tile-off" : ""}`,
        tabindex: "-1",
        "data-channel": channel,
        "aria-label": t("stage.tile", { channel, largest: formatFigure(about.largest[channel]) }),
        title: t("stage.tile", { channel, largest: formatFigure(about.largest[channel]) }),
      },
      canvas,
    );
    tiles.set(channel, link);
    return link;
  }

  function ordered(channels) {
    return state.order === "strongest" ? [...channels].sort((a, b) => about.largest[b] - about.largest[a]) : channels;
  }

  function draw() {
    tiles.clear();
    const all = Array.from({ length: num }, (_, channel) => channel);
    const towers = model.towers === 2 && towerOf(model, stage, 0) !== null ? [0, 1] : [null];
    const most = isDense ? 1024 : FIRST;
    const parts = towers.map((tower) => {
      const own = ordered(all.filter((channel) => tower === null || towerOf(model, stage, channel) === tower));
      const shown = state.isWhole ? own : own.slice(0, most / towers.length);
      const heading = tower === null ? null : h("h4", { class: `tower-name tower-${tower}` }, t("stage.tower_channels", { tower: towerText(tower), first: Math.min(...own), last: Math.max(...own) }));
      return h("div", {}, heading, h("div", { class: "tiles", role: "group", "aria-label": t("stage.tiles_label", { layer: stage.name, tower: tower === null ? "" : towerText(tower) }) }, shown.map(tile)));
    });
    const isCut = !state.isWhole && num > most;
    groups.replaceChildren(
      h("div", { class: towers.length === 2 ? "towers" : "" }, parts),
      isCut
        ? h("button", { type: "button", class: "quiet small", onclick: showAll }, t("stage.show_all", { n: formatNumber(num) }))
        : "",
    );
    mark();
  }

  function showAll() {
    state.isWhole = true;
    draw();
    [...tiles.values()].find((link) => link.tabIndex === 0)?.focus();
  }

  function mark() {
    for (const [channel, link] of tiles) {
      if (channel === state.chosen) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      link.tabIndex = -1;
    }
    const first = tiles.get(state.chosen) ?? tiles.values().next().value;
    if (first) first.tabIndex = 0;
  }

  groups.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-channel]");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    state.chosen = Number(link.dataset.channel);
    mark();
    onchoose(state.chosen);
  });
  groups.addEventListener("keydown", (event) => {
    const link = event.target.closest("a[data-channel]");
    if (!link) return;
    const links = [...tiles.values()];
    const at = links.indexOf(link);
    const inRow = links.filter((other) => other.offsetTop === link.offsetTop && other.parentElement === link.parentElement).length;
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + inRow, ArrowUp: at - inRow, Home: 0, End: links.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = links[Math.max(0, Math.min(links.length - 1, moves[event.key]))];
    link.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  const order = segmented({
    label: t("stage.order"),
    choices: [
      ["number", t("stage.by_number")],
      ["strongest", t("stage.by_strength")],
    ],
    value: state.order,
    onchange: (value) => {
      state.order = value;
      session.order = value;
      draw();
    },
  });
  draw();
  const element = h(
    "div",
    { class: "channels stack", "--tile": `${side}px`, "data-part": "channels" },
    h("div", { class: "section-head" }, h("div", {}, h("h3", {}, t(isDense ? "stage.units" : "stage.channels")), h("p", { class: "note" }, t(isDense ? "stage.units_note" : "stage.channels_note"))), order),
    groups,
  );
  return {
    element,
    strongest: about.largest.indexOf(Math.max(...about.largest)),
    choose(channel) {
      state.chosen = channel;
      if (!tiles.has(channel)) {
        state.isWhole = true;
        draw();
      }
      mark();
    },
    repaint() {
      for (const [channel, link] of tiles) {
        paint(channel, link.firstElementChild);
        link.classList.toggle("tile-off", session.off.has(`${stage.name}.${channel}`));
      }
    },
  };
}

/** Name and kind of a stage, as a heading. */
export function stageHeading(stage) {
  return h("h2", { class: "stage-name" }, stage.name, h("span", { class: "stage-kind" }, kindText(stage)));
}

