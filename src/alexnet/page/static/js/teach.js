import { h } from "./parts.js";

export async function teachAct(main, context) {
  main.replaceChildren(h("h1", {}, context.t("teach.title")));
  return () => {};
}
