// Any gene over any section: draws what the page holds as letters, one a spot.
(() => {
  const store = document.getElementById("atlas-data");
  if (!store) return;
  const atlas = JSON.parse(store.textContent);
  const step = new Map(Array.from(atlas.letters, (letter, number) => [letter, number]));
  const missing = atlas.letters.length - 1;
  const box = document.getElementById("atlas");
  const [sectionChoice, geneChoice, ownScale] = ["section", "gene", "own"].map((name) => box.querySelector(`[data-atlas=${name}]`));
  const said = box.querySelector("output");
  const panels = box.querySelector(".panels");
  const images = new Map();

  const fill = (choice, names, chosen) => {
    choice.replaceChildren(...names.map((name, number) => new Option(name, number)));
    choice.value = chosen;
  };

  const tissueOf = (section) => {
    if (!section.tissue) return Promise.resolve(null);
    if (!images.has(section.name)) {
      const image = new Image();
      image.src = section.tissue;
      images.set(section.name, image.decode().then(() => image, () => null));
    }
    return images.get(section.name);
  };

  const canvasFor = (section, label) => {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    canvas.width = 1000;
    canvas.height = section.height;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", label);
    caption.textContent = label;
    figure.append(canvas, caption);
    panels.append(figure);
    const ink = canvas.getContext("2d");
    ink.fillStyle = "#ffffff";
    ink.fillRect(0, 0, 1000, section.height);
    return ink;
  };

  const drawTissue = (ink, image, section, pale) => {
    if (!image) return;
    ink.drawImage(image, 0, 0, 1000, section.height);
    if (!pale) return;
    ink.globalCompositeOperation = "saturation"; // grey, so that no colour of the tissue is read as a value
    ink.fillStyle = "#808080";
    ink.fillRect(0, 0, 1000, section.height);
    ink.globalCompositeOperation = "source-over";
    ink.fillStyle = "rgba(255, 255, 255, 0.7)";
    ink.fillRect(0, 0, 1000, section.height);
  };

  const drawBar = (ink, section) => {
    if (!section.bar) return;
    const [length, label] = section.bar;
    const y = section.height - 24;
    ink.font = "32px sans-serif";
    ink.fillStyle = "rgba(255, 255, 255, 0.85)";
    ink.fillRect(8, y - 50, Math.max(length, ink.measureText(label).width) + 24, 66);
    ink.fillStyle = "#000000";
    ink.fillRect(20, y, length, 8);
    ink.fillText(label, 20, y - 14);
  };

  const drawSpots = (ink, section, steps, low, high) => {
    steps.forEach((value, spot) => {
      if (value === missing) return;
      const place = high > low ? (value - low) / (high - low) : value > low ? 1 : 0;
      ink.fillStyle = atlas.colours[Math.round(Math.min(Math.max(place, 0), 1) * (missing - 1))];
      ink.beginPath();
      ink.arc(section.xy[2 * spot], section.xy[2 * spot + 1], section.spot / 2, 0, 2 * Math.PI);
      ink.fill();
    });
  };

  const percentile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.round(share * (sorted.length - 1)))];

  let latest = 0;
  const draw = async () => {
    const turn = ++latest;
    const section = atlas.sections[sectionChoice.value];
    const name = atlas.genes[geneChoice.value];
    const gene = section.genes[geneChoice.value];
    const image = await tissueOf(section);
    if (turn !== latest) return;
    panels.replaceChildren();
    const tissue = canvasFor(section, image ? `tissue of ${section.name}` : `${section.name}: no image of the tissue is here`);
    drawTissue(tissue, image, section, false);
    drawBar(tissue, section);
    if (!gene) {
      said.textContent = `${name} was not predicted for section ${section.name}: it is not in the panel of its fold.`;
      return;
    }
    section.panels.forEach((what, number) => {
      const steps = Array.from(gene.values[number], (letter) => step.get(letter));
      const sorted = steps.filter((value) => value !== missing).sort((a, b) => a - b);
      const own = ownScale.checked;
      const ends = own ? gene.own[number] : gene.ends;
      const text = sorted.length ? `${what}, ${ends[0]} to ${ends[1]}` : `${what}: not in these counts`;
      const ink = canvasFor(section, text);
      ink.canvas.setAttribute("aria-label", `${name} ${text}, over ${section.name}`);
      drawTissue(ink, image, section, true);
      drawSpots(ink, section, steps, own ? percentile(sorted, 0.01) : 0, own ? percentile(sorted, 0.99) : missing - 1);
    });
    const score = gene.pcc === null ? "" : `, PCC ${gene.pcc} on this section`;
    said.textContent = `${name} over ${section.name}${score}`;
  };

  fill(sectionChoice, atlas.sections.map((section) => section.name), atlas.section);
  fill(geneChoice, atlas.genes, atlas.gene);
  sectionChoice.closest(".choice").hidden = atlas.sections.length < 2;
  [sectionChoice, geneChoice, ownScale].forEach((choice) => choice.addEventListener("input", draw));
  box.hidden = false;
  draw();

  const number = new Map(atlas.genes.map((gene, place) => [gene, place]));
  for (const row of document.querySelectorAll("#table-genes tbody tr")) {
    const heading = row.cells[0];
    const name = heading.textContent;
    if (!number.has(name)) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "show";
    button.title = "Show on the map";
    button.textContent = name;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      geneChoice.value = number.get(name);
      draw();
      box.scrollIntoView();
      geneChoice.focus({ preventScroll: true });
    });
  }
})();
