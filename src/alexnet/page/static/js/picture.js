import { api } from "./api.js";
import { h, svg } from "./parts.js";

// A picture as the network sees it, with what is laid over it: heat, and the windows that were read.

/** Returns {element, show(pictureId), outline(box, kind), heat(path, opacity)}; boxes are [top, left, bottom, right] in pixels of the view. */
export function pictureFrame({ size, label }) {
  const image = h("img", { class: "frame-picture", alt: label, width: size, height: size, "data-part": "input" });
  const heat = h("img", { class: "frame-heat", alt: "", hidden: true, "data-part": "heat" });
  const field = svg("rect", { class: "frame-field", rx: size / 200 });
  const mark = svg("rect", { class: "frame-mark", rx: size / 200 });
  const shade = svg("path", { class: "frame-shade", "fill-rule": "evenodd" });
  const overlay = svg("svg", { class: "frame-overlay", viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true" }, shade, field, mark);
  const element = h("div", { class: `frame${size < 100 ? " frame-coarse" : ""}` }, image, heat, overlay);
  const place = (rect, box) => {
    rect.toggleAttribute("hidden", !box);
    rect.style.display = box ? "" : "none";
    if (!box) return;
    const [top, left, bottom, right] = box;
    const attributes = { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) };
    for (const [name, value] of Object.entries(attributes)) rect.setAttribute(name, value);
  };
  const outline = (box, kind = "field") => {
    place(kind === "field" ? field : mark, box);
    if (kind !== "field") return;
    shade.setAttribute("d", box ? `M0 0H${size}V${size}H0Z M${box[1]} ${box[0]}V${box[2]}H${box[3]}V${box[0]}Z` : "");
  };
  outline(null);
  outline(null, "mark");
  return {
    element,
    outline,
    async show(picture) {
      const loaded = await api.load(`/api/pictures/${picture}/input.png`);
      image.src = loaded.src;
    },
    async heat(path, opacity) {
      heat.hidden = path === null;
      element.classList.toggle("frame-dimmed", path !== null);
      heat.style.setProperty("--opacity", opacity);
      if (path !== null && heat.dataset.path !== path) {
        const loaded = await api.load(path);
        heat.src = loaded.src;
        heat.dataset.path = path;
      }
    },
  };
}

/** Where a unit reads: [top, left, bottom, right] in the view, cut at its borders; all of it where the layer sees the whole. */
export function fieldBox(field, y, x, size) {
  if (!field) return [0, 0, size, size];
  const start = field.start ?? field.offset ?? 0;
  const top = start + y * field.stride;
  const left = start + x * field.stride;
  return [Math.max(top, 0), Math.max(left, 0), Math.min(top + field.size, size), Math.min(left + field.size, size)];
}

// Values as ink: nothing is the color of the paper, the largest value the darkest (in the dark, the brightest) ink. ----------------

const INKS = {
  light: {
    plain: ["#f1efe9", "#cfe3df", "#7bb9b6", "#1f7f84", "#07373d"],
    tower0: ["#f1efe9", "#d5dbf5", "#95a5e8", "#4659bd", "#182254"],
    tower1: ["#f1efe9", "#f6dcc8", "#e3a273", "#b0561f", "#481d05"],
  },
  dark: {
    plain: ["#212428", "#1d4447", "#2b8186", "#6fcbc8", "#e9fffb"],
    tower0: ["#212428", "#2c3767", "#5468c4", "#9db0ff", "#f0f3ff"],
    tower1: ["#212428", "#51301a", "#a65f2c", "#f2a874", "#fff2e8"],
  },
};

function channelsOf(color) {
  return [1, 3, 5].map((at) => Number.parseInt(color.slice(at, at + 2), 16));
}

const tables = new Map();

/** 256 colors from nothing to the largest value, of the present theme; `tower` is 0, 1 or null. */
export function inkTable(tower = null) {
  const theme = document.documentElement.dataset.theme === "dark" ? "dark" : "light";
  const ink = tower === null || tower === undefined ? "plain" : `tower${tower}`;
  const key = `${theme} ${ink}`;
  if (!tables.has(key)) {
    const stops = INKS[theme][ink].map(channelsOf);
    const table = new Uint8ClampedArray(256 * 3);
    for (let i = 0; i < 256; i += 1) {
      const at = (i / 255) ** 0.65 * (stops.length - 1); // small values are raised, or most maps would look empty
      const low = Math.min(Math.floor(at), stops.length - 2);
      for (let c = 0; c < 3; c += 1) table[3 * i + c] = stops[low][c] + (at - low) * (stops[low + 1][c] - stops[low][c]);
    }
    tables.set(key, table);
  }
  return tables.get(key);
}

/** Paint bytes (rows of `width`) on a canvas with a table of inks. */
export function paintInk(canvas, bytes, width, table) {
  const height = bytes.length / width;
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < bytes.length; i += 1) {
    const ink = 3 * bytes[i];
    image.data.set([table[ink], table[ink + 1], table[ink + 2], 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The grey values of an image, one a pixel: {bytes, width, height}. */
export function greyOf(image) {
  const canvas = h("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const { data, width, height } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const bytes = new Uint8Array(width * height);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = data[4 * i];
  return { bytes, width, height };
}

/** The bytes of one channel, cut from the sheet of a layer that `about` describes. */
export function tileOf(sheet, about, channel) {
  const [height, width] = about.tile;
  const bytes = new Uint8Array(height * width);
  const top = Math.floor(channel / about.columns) * height;
  const left = (channel % about.columns) * width;
  for (let y = 0; y < height; y += 1) {
    const start = (top + y) * sheet.width + left;
    bytes.set(sheet.bytes.subarray(start, start + width), y * width);
  }
  return bytes;
}

const AGAINST = [0, 114, 178];
const FOR = [213, 94, 0];

/** Paint numbers of either sign, rows of rows: blue below zero, orange above, `largest` the fullest. */
export function paintSigned(canvas, rows, largest) {
  const isDark = document.documentElement.dataset.theme === "dark";
  const paper = isDark ? [32, 35, 39] : [250, 249, 246];
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const image = new ImageData(canvas.width, canvas.height);
  rows.flat().forEach((value, i) => {
    const share = largest > 0 ? Math.min(1, Math.abs(value) / largest) ** 0.7 : 0;
    const color = value < 0 ? AGAINST : FOR;
    image.data.set([...paper.map((from, c) => from + share * (color[c] - from)), 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}
