import { exportedImage, exportedJson, isExported, site } from "./exported.js";

// Asks the server; in an exported site, where there is none, looks the same paths up.

/** What went wrong: `kind` is a word that the page has a sentence for, `message` is the server's own English sentence. */
export class ApiError extends Error {
  constructor(kind, message, status = 0) {
    super(message);
    this.kind = kind;
    this.status = status;
  }
}

const sentPictures = new Map(); // picture ID -> blob, to send it again when the server has forgotten it
const MOST_SENT = 64;

function wait(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

async function ask(path, options) {
  // A worker that is being started again says 503 and how long to wait.
  for (let attempt = 0; ; attempt += 1) {
    let response;
    try {
      response = await fetch(path, options);
    } catch (fault) {
      if (fault.name === "AbortError") throw fault;
      throw new ApiError("no-server", String(fault));
    }
    if (response.ok) return response;
    let said = {};
    try {
      said = await response.json();
    } catch {
      // not JSON: the status alone has to do
    }
    if (response.status === 503 && attempt < 5) {
      await wait(Math.min(Number(response.headers.get("Retry-After")) || 1, 5), options?.signal);
      continue;
    }
    throw new ApiError(said.kind ?? "bad-request", said.error ?? response.statusText, response.status);
  }
}

async function sendAgain(path) {
  const picture = /^\/api\/pictures\/([0-9a-f]+)/.exec(path)?.[1];
  const blob = sentPictures.get(picture);
  if (!blob) return false;
  await ask("/api/pictures", { method: "POST", body: blob });
  return true;
}

export const api = {
  /** Whether there is a server, so that pictures can be sent. */
  live: site === null,

  /** The address of a path's image. */
  image(path) {
    return site === null ? path : (site.images[path] ?? "");
  },

  /** Whether there is an answer for this path: always with a server, otherwise where it was exported. */
  has(path) {
    return site === null || isExported(path);
  },

  /** Wait until the network is open; large ones take some seconds. */
  async ready() {
    while (site === null && (await this.json("/health")).status !== "ready") await wait(0.5);
  },

  async json(path, { signal } = {}) {
    if (site !== null) {
      const answer = await exportedJson(path);
      if (answer === undefined) throw new ApiError("not-exported", path, 404);
      return answer;
    }
    try {
      return await (await ask(path, { signal })).json();
    } catch (fault) {
      if (fault.kind === "forgotten" && (await sendAgain(path))) return (await ask(path, { signal })).json();
      throw fault;
    }
  },

  /** POST a file, or an object as JSON. */
  async send(path, body, { signal } = {}) {
    if (site !== null) throw new ApiError("not-exported", path, 404);
    const isFile = body instanceof Blob;
    const headers = isFile ? { "Content-Type": body.type || "application/octet-stream" } : { "Content-Type": "application/json" };
    const answer = await (
      await ask(path, { method: "POST", headers, body: isFile ? body : JSON.stringify(body ?? {}), signal })
    ).json();
    if (isFile && path === "/api/pictures") {
      sentPictures.set(answer.picture, body);
      if (sentPictures.size > MOST_SENT) sentPictures.delete(sentPictures.keys().next().value);
    }
    return answer;
  },

  /** Load a path's image; a picture that the server has forgotten is sent again. */
  async load(path) {
    for (let attempt = 0; ; attempt += 1) {
      const image = new Image();
      image.src = site === null ? path : ((await exportedImage(path)) ?? "");
      try {
        await image.decode();
        return image;
      } catch {
        if (site !== null || attempt > 0) throw new ApiError("no-image", path, 404);
        // The image itself does not say why it did not come; the answer does.
        const response = await ask(path, {}).catch(async (fault) => {
          if (fault.kind === "forgotten" && (await sendAgain(path))) return null;
          throw fault;
        });
        await response?.arrayBuffer();
      }
    }
  },
};
