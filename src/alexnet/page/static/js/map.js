import { formatNumber, t } from "./text.js";
import { h, svg } from "./parts.js";

// Figure 2 of the paper for any network: blocks as deep as their channels, as high as their maps, two towers one above the other.
// The drawing is for the eye; over it lie buttons, one a stage, that a keyboard and a screen reader use.

const NARROW = 700; // below this many pixels the network runs downward
const LETTER = 7.6; // most pixels that a letter of a name takes, on average
const SMALL_LETTER = 6.4; // and of a shape

/** "96 × 55 × 55" */
export function shapeText(shape) {
  return shape.map((side) => formatNumber(side)).join(" × ");
}

/** A stage of two towers is drawn twice; the input and the last layer once. */
function isSplit(model, at) {
  return model.towers === 2 && at > 0 && at < model.stages.length - 1;
}

function hasWeights(stage) {
  return stage.kind === "convolution" || stage.kind === "dense";
}

/** Height, width and depth of a stage's block as shares of what there is room for. */
function proportions(model, stage, split) {
  const units = stage.shape[0] / (split ? 2 : 1);
  if (stage.shape.length === 1) return { side: 0.3 + 0.6 * Math.min(1, Math.log(1 + units) / Math.log(4097)), channels: 0.12, isFlat: true };
  const side = (stage.shape[1] / model.stages[0].shape[1]) ** 0.5;
  return { side, channels: Math.min(1, Math.sqrt(units / 400)), isFlat: false };
}

function polygon(points, attributes) {
  return svg("polygon", { points: points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" "), ...attributes });
}

/** A block in oblique projection. `depth` shifts its back to the right and up. */
function block({ x, y, width, height, depth, className }) {
  const rise = depth * 0.6;
  return svg(
    "g",
    { class: `block ${className}` },
    polygon([[x, y], [x + depth, y - rise], [x + width + depth, y - rise], [x + width, y]], { class: "block-top" }),
    polygon([[x + width, y], [x + width + depth, y - rise], [x + width + depth, y + height - rise], [x + width, y + height]], { class: "block-side" }),
    polygon([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], { class: "block-front" }),
  );
}

function line(from, to, className = "map-wire") {
  return svg("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], class: className });
}

function classOf(stage, tower) {
  const color = tower === null ? "plain" : `tower-${tower}`;
  return `${color} ${hasWeights(stage) ? "weighted" : "bare"} ${stage.kind}`;
}

/** From left to right: {columns: [{stage, blocks, area}], wires, labels, height}; null where the names of the stages find no room. */
function layOutAcross(model, width) {
  const { stages } = model;
  const room = model.towers === 2 ? 150 : 230; // height of the largest map
  const lanes = model.towers === 2 ? [34 + room / 2, 34 + room * 1.5 + 26] : [40 + room / 2];
  const middle = (lanes[0] + lanes[lanes.length - 1]) / 2;
  const bottom = lanes[lanes.length - 1] + room / 2 + 14;
  const sizes = stages.map((stage, at) => {
    const p = proportions(model, stage, isSplit(model, at));
    const height = Math.max(10, p.side * room);
    const channels = at === 0 ? 3 : p.isFlat ? 10 : 6 + p.channels * 44;
    return { height, width: channels, depth: p.isFlat ? 5 : Math.max(5, height * 0.3) };
  });
  const names = stages.map(({ name }) => name.length * LETTER + 6);
  const columnsOf = (shrink) => sizes.map((size, at) => Math.max(names[at], shrink * (size.width + size.depth) + 8));
  const sum = (parts) => parts.reduce((whole, part) => whole + part, 0);
  const shrink = [1, 0.8, 0.6].find((by) => sum(columnsOf(by)) <= width);
  if (shrink === undefined) return null;
  for (const size of sizes) {
    size.width *= shrink;
    size.depth *= shrink;
  }
  const needed = columnsOf(1);
  const spare = Math.max(0, width - sum(needed)) / stages.length;
  let x = 0;
  const columns = stages.map((stage, at) => {
    const size = sizes[at];
    const whole = needed[at] + spare;
    const left = x + (whole - size.width - size.depth) / 2;
    const places = isSplit(model, at) ? lanes.map((center, tower) => ({ center, tower })) : [{ center: middle, tower: null }];
    const blocks = places.map(({ center, tower }) => ({ x: left, y: center - size.height / 2 + size.depth * 0.3, ...size, tower, center, className: classOf(stage, tower) }));
    const column = { stage, blocks, area: { x, y: 0, width: whole, height: bottom + 44 } };
    x += whole;
    return column;
  });
  const wires = [];
  columns.slice(1).forEach((column, before) => {
    const { stage } = column;
    for (const to of column.blocks) {
      for (const from of columns[before].blocks) {
        const crosses = from.tower !== null && to.tower !== null && from.tower !== to.tower;
        if (crosses && (!hasWeights(stage) || (stage.groups ?? 1) > 1)) continue;
        wires.push(...windowWires(stage, columns[before].stage, from, to, crosses));
      }
    }
  });
  const shapes = columns.map(({ stage }) => (stage.shape.length === 3 ? `${stage.shape[0]} × ${stage.shape[1]}²` : formatNumber(stage.shape[0])));
  const isRoomy = columns.every(({ area }, at) => shapes[at].length * SMALL_LETTER + 4 <= area.width);
  return { columns, wires, height: bottom + 44, labels: columns.map((column, at) => acrossLabel(column, isRoomy ? shapes[at] : null)) };
}

/** The window that is read, drawn on the side of one block, and its way to one value of the next. */
function windowWires(stage, source, from, to, crosses) {
  const target = [to.x, to.center + to.depth * 0.3];
  const rise = from.depth * 0.6;
  const right = from.x + from.width;
  if (!stage.kernel || source.shape.length !== 3) {
    return [line([right + from.depth * 0.5, from.center], target, crosses ? "map-wire crossing" : "map-wire")];
  }
  const part = Math.min(0.9, Math.max(0.16, stage.kernel / source.shape[1]));
  const [u, v] = [0.5 - part / 2, 0.42 - part / 2];
  const at = (across, down) => [right + across * from.depth, from.y + down * from.height - across * rise];
  const corners = [at(u, v), at(u + part, v), at(u + part, v + part), at(u, v + part)];
  if (crosses) return [line(at(0.5, 0.42), target, "map-wire crossing")];
  return [
    ...corners.map((corner) => line(corner, target)),
    polygon(corners, { class: "map-window" }),
  ];
}

function acrossLabel({ stage, area }, shape) {
  const x = area.x + area.width / 2;
  const y = area.height - 26;
  return svg(
    "g",
    { class: "map-label" },
    svg("text", { x, y, class: "map-name" }, stage.name),
    shape === null ? null : svg("text", { x, y: y + 16, class: "map-shape" }, shape),
  );
}

/** From top to bottom, for a phone. */
function layOutDown(model, width) {
  const { stages } = model;
  const left = 84;
  const right = 92;
  const room = width - left - right;
  const lanes = model.towers === 2 ? [left + room * 0.24, left + room * 0.76] : [left + room / 2];
  const middle = left + room / 2;
  const most = model.towers === 2 ? room * 0.44 : room * 0.8;
  let y = 4;
  const columns = stages.map((stage, at) => {
    const p = proportions(model, stage, isSplit(model, at));
    const size = { width: Math.max(12, p.side * most), height: p.isFlat || at === 0 ? 6 : 5 + p.channels * 22, depth: p.isFlat ? 4 : 9 };
    const whole = Math.max(44, size.height + size.depth + 20);
    const places = isSplit(model, at) ? lanes.map((center, tower) => ({ center, tower })) : [{ center: middle, tower: null }];
    const top = y + (whole - size.height + size.depth * 0.6) / 2;
    const blocks = places.map(({ center, tower }) => ({ x: center - (size.width + size.depth) / 2, y: top, ...size, tower, center, className: classOf(stage, tower) }));
    const column = { stage, blocks, area: { x: 0, y, width, height: whole } };
    y += whole;
    return column;
  });
  const wires = [];
  columns.slice(1).forEach((column, before) => {
    for (const to of column.blocks) {
      for (const from of columns[before].blocks) {
        const crosses = from.tower !== null && to.tower !== null && from.tower !== to.tower;
        if (crosses && (!hasWeights(column.stage) || (column.stage.groups ?? 1) > 1)) continue;
        wires.push(line([from.center, from.y + from.height], [to.center, to.y - to.depth * 0.3], crosses ? "map-wire crossing" : "map-wire"));
      }
    }
  });
  const labels = columns.map(({ stage, area }) =>
    svg(
      "g",
      { class: "map-label down" },
      svg("text", { x: 10, y: area.y + area.height / 2 + 4, class: "map-name" }, stage.name),
      svg("text", { x: width - 8, y: area.y + area.height / 2 + 4, class: "map-shape" }, shapeText(stage.shape)),
    ),
  );
  return { columns, wires, height: y + 4, labels };
}

export function kindText(stage) {
  return t(`kind.${stage.kind}`);
}

/** The map. `onchoose(stage)` when a stage is chosen; returns {element, choose(name), picture(url), stop}. */
export function networkMap(model, { chosen, onchoose, panel }) {
  const drawing = svg("svg", { class: "map-drawing", "aria-hidden": "true", focusable: "false" });
  const tabs = h("div", { class: "map-tabs", role: "tablist", "aria-label": t("map.label") });
  const element = h("div", { class: "map", "data-part": "map" }, drawing, tabs);
  const state = { chosen, picture: null, width: 0 };
  const buttons = model.stages.map((stage) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        class: "map-tab",
        id: `stage-${stage.name}`,
        "aria-controls": panel,
        "data-stage": stage.name,
        "aria-label": `${stage.name}, ${kindText(stage)}, ${shapeText(stage.shape)}`,
        onclick: () => choose(stage.name, true),
      },
    ),
  );
  tabs.append(...buttons);
  tabs.addEventListener("keydown", (event) => {
    const at = model.stages.findIndex((stage) => stage.name === state.chosen);
    const moves = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: model.stages.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(model.stages.length - 1, moves[event.key]));
    choose(model.stages[next].name, true);
    buttons[next].focus();
  });

  function choose(name, isUser) {
    state.chosen = name;
    buttons.forEach((button, at) => {
      const isChosen = model.stages[at].name === name;
      button.setAttribute("aria-selected", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
    });
    for (const group of drawing.querySelectorAll("[data-stage]")) group.classList.toggle("chosen", group.dataset.stage === name);
    if (isUser) onchoose(model.stages.find((stage) => stage.name === name));
  }

  function draw() {
    const width = Math.floor(element.clientWidth);
    if (width === 0) return;
    state.width = width;
    const across = width >= NARROW ? layOutAcross(model, width) : null;
    const isAcross = across !== null;
    const layout = across ?? layOutDown(model, width);
    drawing.setAttribute("viewBox", `0 0 ${width} ${layout.height}`);
    drawing.setAttribute("width", width);
    drawing.setAttribute("height", layout.height);
    const groups = layout.columns.map(({ stage, blocks, area }, at) =>
      svg(
        "g",
        { "data-stage": stage.name, class: "map-stage" },
        svg("rect", { class: "map-area", x: area.x + 1, y: area.y + 1, width: area.width - 2, height: area.height - 2, rx: 8 }),
        blocks.map(block),
        at === 0 && isAcross && state.picture ? pictureOnSide(blocks[0], state.picture) : null,
        layout.labels[at],
      ),
    );
    drawing.replaceChildren(...groups.map((group) => svg("g", {}, group)), svg("g", { class: "map-wires" }, layout.wires));
    tabs.setAttribute("aria-orientation", isAcross ? "horizontal" : "vertical");
    layout.columns.forEach(({ area }, at) => {
      const box = { left: area.x, top: area.y, width: area.width, height: area.height };
      for (const [name, value] of Object.entries(box)) buttons[at].style.setProperty(name, `${value}px`);
    });
    choose(state.chosen, false);
  }

  const observer = new ResizeObserver(() => {
    if (Math.floor(element.clientWidth) !== state.width) draw();
  });
  observer.observe(element);
  return {
    element,
    choose: (name) => choose(name, false),
    picture(url) {
      state.picture = url;
      draw();
    },
    stop: () => observer.disconnect(),
  };
}

/** The picture itself on the side of the input block, in the same projection. */
function pictureOnSide({ x, y, width, height, depth }, url) {
  const shear = -0.6 * depth;
  return svg("image", {
    href: url,
    width: 1,
    height: 1,
    preserveAspectRatio: "none",
    transform: `matrix(${depth} ${shear} 0 ${height} ${x + width} ${y})`,
  });
}
