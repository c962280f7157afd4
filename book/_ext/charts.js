
// Draws every chart of the page from the specification that it holds, as wide as the text.
for (const place of document.querySelectorAll(".vega-chart")) {
  const specification = JSON.parse(place.querySelector("script").textContent);
  const style = { background: "transparent", font: getComputedStyle(document.body).fontFamily };
  for (const part of ["axis", "legend", "title", "header"])
    Object.assign((style[part] = {}), { labelFontSize: 12, titleFontSize: 12, fontSize: 12, titleFontWeight: "normal" });
  style.text = { fontSize: 12 };
  window.vegaEmbed(place, specification, { actions: false, renderer: "svg", config: style });
}
