import { api } from "./api.js";
import { formatFigure, formatNumber, formatPercent, t } from "./text.js";
import { announce, busyLine, faultNotice, h, icon, toggle, whenSeen } from "./parts.js";
import { fieldBox, inkTable, paintInk, paintSigned, pictureFrame } from "./picture.js";
import { stageFacts, stageHeading, towerOf, towerText } from "./stage.js";
import { firstPicture, sampleRow } from "./samples.js";

// A unit, or a channel of units: what it is, what it wants to see, what it does with the present picture. The See act shows it beside
// its layer; at /unit/LAYER/CHANNEL it has a page to itself.

const SETTLED = 120; // milliseconds that a place is looked at before its products are asked for

/** The stage of this name, or a fault. */
function stageOf(model, layer) {
  const stage = model.stages.find(({ name }) => name === layer);
  if (!stage || stage.kind === "input") throw Object.assign(new Error(t("unit.no_layer", { layer })), { kind: "no-layer" });
  return stage;
}

/**
 * Fill `element` with a channel. `onoff()` is called when the channel was switched off or on; `below` stands beneath what it does with
 * the present picture; `level` is that of its headings. Returns what ends it.
 */
export function channelPanel(element, { context, layer, channel, onoff = () => {}, below = null, level = 3 }) {
  const { model, session } = context;
  const stage = stageOf(model, layer);
  const ending = new AbortController();
  const parts = [];
  if (stage.trained === false) {
    element.replaceChildren(h("p", { class: "notice" }, t("stage.untrained")));
    return () => {};
  }
  if (session.picture) {
    const part = h("div", { class: "stack" }, busyLine(t("busy.map")));
    parts.push(h("div", { class: "stack wide-gap" }, part, below));
    showOnPicture(part, { context, stage, channel, onoff, level, signal: ending.signal }).catch((fault) => fail(part, fault));
  }
  if (stage.has_units && api.has(`/api/units/${layer}/${channel}`)) {
    const part = h("div", { class: "stack", "data-part": "wants" });
    parts.push(part);
    showWants(part, { stage, channel, model, level, signal: ending.signal }).catch((fault) => fail(part, fault));
  } else if (stage.has_units) {
    parts.push(h("p", { class: "note" }, t("unit.left_out")));
  }
  element.replaceChildren(...parts);

  function fail(part, fault) {
    if (!ending.signal.aborted) part.replaceChildren(faultNotice(fault));
  }
  return () => ending.abort();
}

/** On the present picture: its map, where each value comes from, what becomes of the answer without it. */
async function showOnPicture(element, { context, stage, channel, onoff, level, signal }) {
  const { model, session } = context;
  const { size } = model.input;
  const picture = session.picture.id;
  const map = await api.json(`/api/pictures/${picture}/maps/${stage.name}/${channel}`, { signal });
  const rows = map.values.length;
  const columns = map.values[0].length;
  const frame = pictureFrame({ size, label: t("unit.picture_alt") });
  await frame.show(picture);
  if (signal.aborted) return;
  const isDense = stage.shape.length === 1;
  const value = h("p", { class: "reading", "data-part": "reading" });
  const products = h("div", { class: "stack", "data-part": "products" });
  const state = { y: map.strongest[0], x: map.strongest[1], timer: 0 };
  const first = model.stages.find(({ kind }) => kind === "convolution");
  const hasProducts = stage === first && context.api.live;

  const canvas = h("canvas", { class: "big-map", "aria-hidden": "true" });
  const cursor = h("span", { class: "map-cursor", "aria-hidden": "true" });
  const pad = h(
    "div",
    { class: "map-pad", tabindex: "0", role: "application", "aria-label": t("unit.map_label", { layer: stage.name, channel }), "data-part": "map-pad" },
    canvas,
    cursor,
  );

  function paint() {
    const bytes = new Uint8Array(rows * columns);
    map.values.flat().forEach((number, i) => {
      bytes[i] = map.largest > 0 ? Math.max(0, Math.min(255, Math.round((255 * number) / map.largest))) : 0;
    });
    paintInk(canvas, bytes, columns, inkTable(towerOf(model, stage, channel)));
  }

  function look(y, x, { spoken = false } = {}) {
    state.y = y;
    state.x = x;
    cursor.style.setProperty("--x", x / columns);
    cursor.style.setProperty("--y", y / rows);
    cursor.style.setProperty("--w", 1 / columns);
    cursor.style.setProperty("--h", 1 / rows);
    const isStrongest = y === map.strongest[0] && x === map.strongest[1];
    const box = isStrongest ? map.box : fieldBox(stage.field, y, x, size);
    frame.outline(isDense || !stage.field ? null : box);
    const sentence = isDense
      ? t("unit.reading_dense", { value: formatFigure(map.values[y][x]) })
      : t(stage.field ? "unit.reading" : "unit.reading_whole", { y, x, value: formatFigure(map.values[y][x]), top: box[0], left: box[1], bottom: box[2] - 1, right: box[3] - 1 });
    value.replaceChildren(sentence, isStrongest && !isDense ? h("span", { class: "note" }, ` ${t("unit.strongest_here")}`) : "");
    if (spoken) announce(sentence);
    if (!hasProducts) return;
    clearTimeout(state.timer);
    state.timer = setTimeout(async () => {
      try {
        const read = await api.json(`/api/pictures/${picture}/window/${stage.name}/${channel}/${y}/${x}`, { signal });
        if (state.y === y && state.x === x && read.products) products.replaceChildren(productGrids(read.products));
      } catch (fault) {
        if (!signal.aborted) products.replaceChildren(faultNotice(fault));
      }
    }, SETTLED);
  }

  function placeOf(event) {
    const area = pad.getBoundingClientRect();
    const within = (position, extent, count) => Math.max(0, Math.min(count - 1, Math.floor((position / extent) * count)));
    return [within(event.clientY - area.top, area.height, rows), within(event.clientX - area.left, area.width, columns)];
  }
  pad.addEventListener("pointermove", (event) => {
    const [y, x] = placeOf(event);
    if (y !== state.y || x !== state.x) look(y, x);
  });
  pad.addEventListener("pointerdown", (event) => look(...placeOf(event)));
  pad.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key];
    if (!move && event.key !== "Home") return;
    event.preventDefault();
    const [y, x] = move ? [state.y + move[0], state.x + move[1]] : map.strongest;
    look(Math.max(0, Math.min(rows - 1, y)), Math.max(0, Math.min(columns - 1, x)), { spoken: true });
  });
  const repaint = new MutationObserver(() => {
    paint();
    look(state.y, state.x);
  });
  repaint.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  signal.addEventListener("abort", () => {
    repaint.disconnect();
    clearTimeout(state.timer);
  });

  paint();
  look(state.y, state.x);
  const isLast = stage === model.stages[model.stages.length - 1];
  element.replaceChildren(
    h(`h${level}`, { class: "part-name" }, t("unit.on_picture")),
    isDense
      ? ""
      : h(
          "div",
          { class: "pair" },
          h("figure", {}, frame.element, h("figcaption", { class: "note" }, t(stage.field ? "unit.picture_note" : "unit.picture_note_whole"))),
          h("figure", {}, pad, h("figcaption", { class: "note" }, t("unit.map_note", { largest: formatFigure(map.largest) }))),
        ),
    value,
    hasProducts ? products : "",
    model.can_answer && !isLast && context.api.live ? switchOf({ session, stage, channel, picture, onoff, signal }) : "",
  );
}

/** The channel's own switch, and what the answer is without it. */
function switchOf({ session, stage, channel, picture, onoff, signal }) {
  const name = `${stage.name}.${channel}`;
  const result = h("p", { class: "note", role: "status" });
  const say = async () => {
    result.replaceChildren();
    if (!session.off.has(name)) return;
    const answer = await api.json(`/api/pictures/${picture}/answers?off=${encodeURIComponent(name)}`, { signal });
    const top = answer.before[0];
    const after = answer.after.find(({ label }) => label === top.label)?.probability ?? top.probability_after ?? 0;
    result.textContent = t("unit.without", { name: top.name, before: formatPercent(top.probability), after: formatPercent(after) });
  };
  const attempt = () =>
    say().catch((fault) => {
      if (!signal.aborted) result.replaceChildren(faultNotice(fault));
    });
  attempt();
  return h(
    "div",
    { class: "stack tight" },
    toggle({
      text: t(stage.shape.length === 3 ? "unit.switch_off" : "unit.switch_off_dense"),
      on: session.off.has(name),
      onchange: (isOff) => {
        if (isOff) session.off.add(name);
        else session.off.delete(name);
        attempt();
        onoff();
      },
    }),
    result,
  );
}

/** What was read, the kernel, and their products, a row for each color; and the sum written out. */
function productGrids({ channels, input, kernel, products, bias, sum, after_relu: after }) {
  const largestOf = (planes) => Math.max(...planes.flat(2).map(Math.abs));
  const scales = { input: largestOf(input), kernel: largestOf(kernel), products: largestOf(products) };
  const total = (plane) => plane.flat().reduce((whole, part) => whole + part, 0);
  const signed = (rows, largest, text) => {
    const canvas = h("canvas", { class: "product", role: "img", "aria-label": text });
    paintSigned(canvas, rows, largest);
    return canvas;
  };
  const names = channels ?? (input.length === 3 ? ["red", "green", "blue"] : input.map(() => "grey"));
  const sums = products.map(total);
  const rows = input.map((plane, c) => {
    const color = t(`color.${names[c]}`);
    return h(
      "tr",
      {},
      h("th", { scope: "row" }, color),
      h("td", {}, signed(plane, scales.input, t("unit.input_of", { color }))),
      h("td", { class: "sign", "aria-hidden": "true" }, "×"),
      h("td", {}, signed(kernel[c], scales.kernel, t("unit.kernel_of", { color }))),
      h("td", { class: "sign", "aria-hidden": "true" }, "="),
      h("td", {}, signed(products[c], scales.products, t("unit.products_of", { color }))),
      h("td", { class: "figures" }, formatSum(sums[c])),
    );
  });
  const head = ["", t("unit.input"), null, t("unit.kernel"), null, t("unit.products"), t("unit.row_sum")];
  return h(
    "div",
    { class: "products" },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, t("unit.products_caption")),
      h("thead", {}, h("tr", {}, head.map((text) => (text ? h("th", { scope: "col" }, text) : h("td", {}))))),
      h("tbody", {}, rows),
    ),
    h(
      "p",
      { class: "figures sum-line" },
      sums.map((part, c) => `${c === 0 ? formatSum(part) : `${part < 0 ? "−" : "+"} ${formatSum(Math.abs(part))}`} `).join(""),
      `${bias < 0 ? "−" : "+"} ${formatSum(Math.abs(bias))} = `,
      h("strong", {}, formatSum(sum)),
      Math.abs(sum - after) > 1e-4 * Math.max(1, Math.abs(sum)) ? ` → ReLU → ${formatSum(after)}` : "",
    ),
    h("p", { class: "note" }, t("unit.sum_note")),
  );
}

function formatSum(value) {
  return formatNumber(value, 3).replace("-", "−");
}

/** What it is, and what it wants to see: on any picture. */
async function showWants(element, { stage, channel, model, level, signal }) {
  const path = `/api/units/${stage.name}/${channel}`;
  const first = model.stages.find(({ kind }) => kind === "convolution");
  const heading = h(`h${level}`, { class: "part-name" }, t("unit.wants"));
  const known = { tower: towerOf(model, stage, channel), field: stage.field, selectivity: null };
  element.replaceChildren(heading, ...unitFacts(known));
  await whenSeen(element, signal); // it may take the network seconds
  element.append(busyLine(t("busy.unit")));
  const show = async (unit, ...more) => {
    if (signal.aborted) return;
    const wanted = await wantedPictures({ unit, path, stage, model, hasKernel: stage === first && stage.kind === "convolution", level, signal });
    if (!signal.aborted) element.replaceChildren(heading, ...unitFacts(unit), ...wanted, ...more);
  };
  let unit = await api.json(path, { signal });
  if (unit.images < unit.of && unit.why_no_crops === null) {
    // The pictures of the data are looked through a little with every question.
    const line = h("p", { class: "note", "data-part": "looking" });
    const say = () => line.replaceChildren(t("unit.looking", { n: formatNumber(unit.images), of: formatNumber(unit.of) }));
    say();
    await show(unit, line);
    while (!signal.aborted && unit.images < unit.of && unit.why_no_crops === null) {
      unit = await api.json(path, { signal });
      say();
    }
  }
  await show(unit);
}

function unitFacts(unit) {
  const tower = unit.tower ?? null;
  const facts = [
    tower === null ? null : h("div", { class: "fact" }, h("dt", {}, t("unit.tower")), h("dd", {}, h("span", { class: `badge tower-${tower}` }, towerText(tower)))),
    unit.field ? h("div", { class: "fact" }, h("dt", {}, t("stage.field")), h("dd", {}, `${unit.field.size} × ${unit.field.size}`)) : null,
    unit.selectivity === null || unit.selectivity === undefined ? null : selectivity(unit.selectivity),
  ].filter(Boolean);
  return facts.length ? [h("dl", { class: "facts" }, facts)] : [];
}

function selectivity(share) {
  return h(
    "div",
    { class: "fact wide" },
    h("dt", {}, t("unit.selectivity")),
    h(
      "dd",
      {},
      formatPercent(share),
      h("span", { class: "meter", "aria-hidden": "true" }, h("span", { class: "meter-mark", "--share": share })),
      h("span", { class: "fact-note" }, t("unit.selectivity_note")),
    ),
  );
}

async function wantedPictures({ unit, path, stage, model, hasKernel, level, signal }) {
  const shown = [];
  const figure = async (name, alt, caption, className) => {
    const image = await api.load(`${path}/${name}.png`);
    return h("figure", { class: "wanted" }, h("img", { class: className, src: image.src, alt }), h("figcaption", { class: "note" }, caption));
  };
  const beside = [];
  if (hasKernel) beside.push(figure("kernel", t("unit.kernel_alt"), t("unit.kernel_note"), "pixels"));
  if (unit.optimal) {
    const { activation, crop_activation: onCrop } = unit.optimal;
    const isSilent = activation <= 0; // a unit that nothing excites
    const figures = onCrop === null || onCrop === undefined ? { value: formatFigure(activation) } : { value: formatFigure(activation), crop: formatFigure(onCrop) };
    beside.push(figure("optimal", t("unit.optimal_alt", { layer: stage.name, channel: unit.channel }), t(isSilent ? "unit.optimal_silent" : "crop" in figures ? "unit.optimal_note" : "unit.optimal_note_alone", figures), ""));
  } else if (!api.live) {
    beside.push(h("p", { class: "note" }, t("unit.optimal_left_out")));
  }
  shown.push(h("div", { class: "pair" }, ...(await Promise.all(beside))));
  if (unit.crops?.length) {
    const image = await api.load(`${path}/crops.png`);
    if (signal.aborted) return [];
    const side = image.naturalHeight;
    const items = unit.crops.map((crop, i) => {
      const canvas = h("canvas", { width: side, height: side, class: "crop", role: "img", "aria-label": t("unit.crop_alt", { n: i + 1 }) });
      canvas.getContext("2d").drawImage(image, i * side, 0, side, side, 0, 0, side, side);
      const label = typeof crop.label === "number" ? model.classes[crop.label] : crop.label;
      return h("li", {}, canvas, h("span", { class: "crop-label" }, formatFigure(crop.activation), label ? ` ${label}` : ""));
    });
    shown.push(h("div", { class: "stack tight" }, h(`h${level + 1}`, { class: "part-name" }, t("unit.crops")), h("ol", { class: "crops", "data-part": "crops" }, items), h("p", { class: "note" }, t("unit.crops_note"))));
  } else if (unit.why_no_crops) {
    shown.push(h("p", { class: "note" }, t(model.data === null ? "unit.no_crops" : "unit.nothing_excites")));
  }
  return shown;
}

/** Previous, next, and the number itself. */
export function unitSteps({ stage, channel, onstep, href }) {
  const num = stage.shape[0];
  const step = (to, name, text) =>
    to < 0 || to >= num
      ? h("span", { class: "quiet square disabled", "aria-hidden": "true" }, icon(name))
      : h("a", { class: "quiet square", href: href(`/unit/${stage.name}/${to}`), "aria-label": text, title: text, onclick: (event) => onstep(to, event) }, icon(name));
  const input = h("input", {
    type: "number",
    min: 0,
    max: num - 1,
    value: channel,
    "aria-label": t("unit.number_label", { last: num - 1 }),
    onchange: () => {
      const to = Math.round(Number(input.value));
      if (to >= 0 && to < num) onstep(to);
      else input.value = channel;
    },
  });
  return h("div", { class: "row steps" }, step(channel - 1, "previous", t("unit.previous")), input, h("span", { class: "note" }, t("unit.of", { last: formatNumber(num - 1) })), step(channel + 1, "next", t("unit.next")));
}

/** The page of a unit, at its stable address. */
export async function unitAct(main, context) {
  const { model, session, go, href } = context;
  const { layer, channel } = context.address;
  const stage = stageOf(model, layer);
  if (!Number.isInteger(channel) || channel < 0 || channel >= stage.shape[0]) {
    throw Object.assign(new Error(t("unit.no_channel", { layer, last: stage.shape[0] - 1 })), { kind: "no-channel" });
  }
  document.title = `${layer} ${channel} · alexnet`;
  session.stage = layer;
  session.channels[layer] = channel;
  const name = stage.kind === "dense" && stage === model.stages[model.stages.length - 1] && model.can_answer ? model.classes[channel] : null;
  const panel = h("div", { class: "unit-parts" });
  const samples = h("div", {});
  const about = h("div", { class: "stage-about" }, h("div", {}, stageHeading(stage)), h("div", { class: "stack" }, stageFacts(model, stage, context.language)));
  main.replaceChildren(
    h(
      "nav",
      { class: "crumbs", "aria-label": t("unit.crumbs") },
      h("a", { href: href("/see"), "data-go": "/see" }, t("nav.see")),
      h("span", { "aria-hidden": "true" }, "/"),
      h("span", {}, layer),
    ),
    h(
      "div",
      { class: "section-head" },
      h("h1", { class: "unit-title" }, t(stage.shape.length === 3 ? "unit.title" : "unit.title_dense", { layer, channel }), name ? h("span", { class: "unit-class" }, name) : null),
      unitSteps({
        stage,
        channel,
        href,
        onstep: (to, event) => {
          event?.preventDefault();
          go(`/unit/${layer}/${to}`);
        },
      }),
    ),
    panel,
    h("section", { class: "section" }, about),
  );
  let stop = () => {};
  const redraw = () => {
    stop();
    stop = channelPanel(panel, { context, layer, channel, below: samples, level: 2 });
  };
  try {
    await firstPicture(context);
    redraw();
    samples.replaceChildren(await sampleRow(context, { title: t("unit.other_picture"), onpicture: redraw }));
  } catch (fault) {
    panel.replaceChildren(faultNotice(fault));
  }
  return () => stop();
}
