import { h } from "./parts.js";

export async function searchAct(main, context) {
  main.replaceChildren(h("h1", {}, context.t("search.title")));
  return () => {};
}
