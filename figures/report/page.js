// The glue of a report: vegaEmbed (bundled with this) draws the charts; the rest is plain HTML that works without it.
const root = document.documentElement;

const themes = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
  root.dataset.theme = next;
  themeButton.textContent = `Colours: ${next}`;
});

for (const chart of document.querySelectorAll(".chart")) {
  const spec = JSON.parse(chart.querySelector("script").textContent);
  const canvas = chart.querySelector(".canvas"); // one image with a label: its parts mean nothing to a screen reader
  vegaEmbed(canvas, spec, { actions: false, renderer: "svg", tooltip: { disableDefaultStyle: true } })
    .then(() => canvas.querySelector("svg").setAttribute("aria-hidden", "true"));
}

for (const line of document.querySelectorAll(".line")) {
  const slider = line.querySelector("input[type=range]");
  const strips = [...line.querySelectorAll(".strip")].map((strip) => [...strip.querySelectorAll("img")]);
  const views = [...line.querySelectorAll(".view")];
  const show = () => {
    const texts = views.map((view, path) => {
      const image = strips[path][slider.value];
      view.querySelector("img").src = image.src;
      view.querySelector("img").alt = image.alt;
      view.querySelector("output").textContent = image.title;
      return `${view.dataset.path}: ${image.title}`;
    });
    slider.setAttribute("aria-valuetext", texts.join("; "));
    strips.flat().forEach((image) => image.classList.remove("shown"));
    strips.forEach((strip) => strip[slider.value].classList.add("shown"));
  };
  slider.addEventListener("input", show);
  strips.flat().forEach((image) => image.addEventListener("click", () => {
    slider.value = image.dataset.step;
    show();
  }));
  line.querySelector(".scrub").hidden = false;
  show();
}

const number = (text) => parseFloat(text.replaceAll(",", ""));
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].sort((one, other) => {
        const [a, b] = [one, other].map((row) => row.cells[column].textContent.trim());
        const difference = number(a) - number(b);
        return (down ? -1 : 1) * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
      });
      table.tBodies[0].append(...rows);
    });
  });
}
