// An exported site has no server: the answers lie in `window.ALEXNET_SITE`, by the paths that a server would be asked for. `json` and
// `images` (addresses of files, or data: URLs) have those that are there from the start; `later` names the script that brings a path.

export const site = window.ALEXNET_SITE ?? null;

const scripts = new Map(); // file -> a promise of its having run
const pixelsOf = new Map(); // path of a sheet -> a promise of its pixels

/** The sheet that the map of one channel is cut from: `/api/pictures/ID/maps/LAYER/CHANNEL` -> {path, channel}; null for other paths. */
function sheetOf(path) {
  const found = /^(\/api\/pictures\/[^/]+\/maps\/[^/]+)\/(\d+)$/.exec(path);
  return found ? { path: found[1], channel: Number(found[2]) } : null;
}

export function isExported(path) {
  const sheet = sheetOf(path);
  return path in site.json || path in site.images || path in site.later || (sheet !== null && isExported(sheet.path));
}

/** Run the script that brings this path, if it is one that comes later. */
async function bring(path) {
  const file = site.later[path];
  if (file === undefined) return;
  if (!scripts.has(file)) {
    const running = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = file;
      script.addEventListener("load", resolve);
      script.addEventListener("error", () => {
        scripts.delete(file);
        reject(new Error(`${file} did not load`));
      });
      document.head.append(script);
    });
    scripts.set(file, running);
  }
  await scripts.get(file);
}

/** The JSON of a path; undefined where it was not exported. */
export async function exportedJson(path) {
  const sheet = sheetOf(path);
  if (sheet !== null) return cutMap(sheet);
  await bring(path);
  return site.json[path];
}

/** The address of the image of a path; undefined where it was not exported. */
export async function exportedImage(path) {
  await bring(path);
  const address = site.images[path];
  return path.includes("/maps/") && address !== undefined ? paintSheet(path) : address;
}

// Maps. Each tile of a stored sheet has 256 steps of its own, from the channel's `smallest` to its `largest` value. Where a tile is a
// single value, it is `largest`.

/** The pixels of a stored sheet, four numbers each. */
function storedPixels(path) {
  if (!pixelsOf.has(path)) {
    const read = async () => {
      const image = new Image();
      image.src = site.images[path];
      await image.decode();
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const pen = canvas.getContext("2d", { willReadFrequently: true });
      pen.drawImage(image, 0, 0);
      return pen.getImageData(0, 0, canvas.width, canvas.height);
    };
    pixelsOf.set(path, read());
  }
  return pixelsOf.get(path);
}

/** Call `give(y, x, value, at)` for every value of a channel; `at` is its place among the pixels. */
function readTile({ data, width }, { columns, tile, smallest, largest }, channel, give) {
  const top = Math.floor(channel / columns) * tile[0];
  const left = (channel % columns) * tile[1];
  const low = smallest?.[channel] ?? largest[channel];
  const step = (largest[channel] - low) / 255;
  for (let y = 0; y < tile[0]; y += 1) {
    for (let x = 0; x < tile[1]; x += 1) {
      const at = 4 * ((top + y) * width + left + x);
      give(y, x, low + step * data[at], at);
    }
  }
}

/** The sheet as a server draws it: 0 to the layer's `scale` as 0 to 255. */
async function paintSheet(path) {
  const about = await exportedJson(path.replace(/\.png$/, ""));
  const stored = await storedPixels(path);
  const sheet = new ImageData(stored.width, stored.height);
  const white = about.scale > 0 ? 255 / about.scale : 0;
  sheet.data.fill(255);
  about.largest.forEach((_, channel) => {
    readTile(stored, about, channel, (y, x, value, at) => sheet.data.fill(white * value, at, at + 3)); // rounds, and cuts off
  });
  const canvas = document.createElement("canvas");
  canvas.width = sheet.width;
  canvas.height = sheet.height;
  canvas.getContext("2d").putImageData(sheet, 0, 0);
  return canvas.toDataURL();
}

/** One map as numbers, where it is strongest, and what the unit there sees. */
async function cutMap({ path, channel }) {
  const about = await exportedJson(path);
  if (about === undefined || channel >= about.largest.length) return undefined;
  const values = Array.from({ length: about.tile[0] }, () => []);
  readTile(await storedPixels(`${path}.png`), about, channel, (y, x, value) => {
    values[y][x] = value;
  });
  return { values, largest: about.largest[channel], strongest: about.strongest?.[channel] ?? [0, 0], box: about.boxes?.[channel] ?? about.whole };
}
