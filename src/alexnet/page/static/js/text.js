import { api } from "./api.js";

// Every word of the page, in two languages: text/en.json and text/zh.json, flat keys.
export const LANGUAGES = ["en", "zh"];

const words = { language: "en", texts: {} };

export function preferredLanguage() {
  const asked = new URLSearchParams(location.search).get("lang");
  const wishes = [asked, remembered("language"), ...(navigator.languages ?? [navigator.language])];
  for (const wish of wishes) {
    const found = LANGUAGES.find((language) => wish?.toLowerCase().startsWith(language));
    if (found) return found;
  }
  return "en";
}

/** What the browser remembers of this page; nothing where it may not. */
export function remembered(name) {
  try {
    return localStorage.getItem(`alexnet.${name}`);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`alexnet.${name}`, value);
  } catch {
    // Private windows refuse; the page works without.
  }
}

export async function speak(language) {
  words.texts[language] ??= await api.json(`/static/text/${language}.json`);
  words.language = language;
  document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
}

export function spokenLanguage() {
  return words.language;
}

/** The text of a key in the current language, `{name}` replaced; the key itself where there is none. */
export function t(key, values = {}) {
  const text = words.texts[words.language]?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

export function hasText(key) {
  return key in (words.texts[words.language] ?? {});
}

/** The sentence for a fault: the page's own words for its kind, else the server's. */
export function faultText(fault) {
  const key = `fault.${fault.kind}`;
  return hasText(key) ? t(key) : fault.message;
}

export function formatNumber(value, digits = 0) {
  return new Intl.NumberFormat(words.language, { maximumFractionDigits: digits, minimumFractionDigits: 0 }).format(value);
}

/** A figure of an activation or a weight: three significant digits. */
export function formatFigure(value) {
  if (!Number.isFinite(value)) return "–";
  const notation = value !== 0 && Math.abs(value) < 1e-4 ? "scientific" : "standard";
  return new Intl.NumberFormat(words.language, { maximumSignificantDigits: 3, notation }).format(value);
}

export function formatPercent(fraction) {
  const percent = 100 * fraction;
  if (percent > 0 && percent < 0.1) return `< ${formatNumber(0.1, 1)} %`;
  return `${new Intl.NumberFormat(words.language, { minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(percent)} %`;
}

export function formatSeconds(seconds) {
  if (seconds < 1) return t("time.milliseconds", { n: formatNumber(Math.max(1, Math.round(seconds * 1000))) });
  return t("time.seconds", { n: formatNumber(seconds, 1) });
}
