"use strict";
// The gallery of slices. #data holds what encode_slice in gallery.py gives, in the order of the report: worst first.
(() => {
  const byId = (id) => document.getElementById(id);
  const BOTH = [86, 180, 233], PREDICTED = [240, 228, 66], MISSED = [213, 94, 0];
  const RAMP = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // as --ramp in style.css
  const TINT = 0.62;
  const slices = JSON.parse(byId("data").textContent);
  let shown = []; // slices in the order of the grid
  let open = null; // the slice in the viewer
  let chosenThreshold = null; // the slider's; null: the one of the run

  // Masks and Dice: arrays in, arrays and numbers out.

  async function inflate(text) {
    const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function unpackBits(bytes, count) {
    return Uint8Array.from({ length: count }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1);
  }

  // Leaves out components of 8 neighbours with fewer pixels than `fewest`.
  function removeSmall(mask, width, height, fewest) {
    const seen = new Uint8Array(mask.length);
    for (let start = 0; start < mask.length; start++) {
      if (!mask[start] || seen[start]) continue;
      const component = [start];
      seen[start] = 1;
      for (let next = 0; next < component.length; next++) {
        const x = component[next] % width, y = Math.floor(component[next] / width);
        for (let row = Math.max(0, y - 1); row <= Math.min(height - 1, y + 1); row++) {
          for (let column = Math.max(0, x - 1); column <= Math.min(width - 1, x + 1); column++) {
            const neighbour = row * width + column;
            if (mask[neighbour] && !seen[neighbour]) {
              seen[neighbour] = 1;
              component.push(neighbour);
            }
          }
        }
      }
      if (component.length < fewest) component.forEach((i) => { mask[i] = 0; });
    }
    return mask;
  }

  function predictedMask(slice, threshold, smallest) {
    const mask = slice.levels.map((level) => (level / 255 > threshold ? 1 : 0));
    return smallest ? removeSmall(mask, slice.width, slice.height, smallest * mask.length) : mask;
  }

  function diceOf(predicted, truth) {
    let shared = 0, total = 0;
    predicted.forEach((value, i) => { shared += value & truth[i]; total += value + truth[i]; });
    return total ? (2 * shared) / total : 1;
  }

  // Pictures.

  function differenceColor(predicted, truth) {
    return (i) => {
      if (predicted[i]) return !truth || truth[i] ? BOTH : PREDICTED;
      return truth && truth[i] ? MISSED : null;
    };
  }

  function rampColor(level) {
    const place = (level / 255) * (RAMP.length - 1), low = Math.min(Math.floor(place), RAMP.length - 2);
    return RAMP[low].map((value, channel) => value + (place - low) * (RAMP[low + 1][channel] - value));
  }

  // Draws color(i) on each pixel i; nothing where it is null.
  function paint(canvas, slice, color, alpha) {
    canvas.width = slice.width;
    canvas.height = slice.height;
    const pixels = new ImageData(slice.width, slice.height);
    for (let i = 0; i < slice.width * slice.height; i++) {
      const rgb = color(i);
      if (rgb) pixels.data.set([...rgb, 255 * alpha], 4 * i);
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  // The grid.

  const digits = (value) => (value === null ? "not known" : value.toFixed(3));
  const percent = (share) => (share === 0 ? "no tumour" : `tumour ${(100 * share).toFixed(share < 0.001 ? 3 : 2)} %`);

  function element(tag, properties, ...children) {
    const node = Object.assign(document.createElement(tag), properties);
    node.append(...children);
    return node;
  }

  function makeCard(slice) {
    const image = element("img", { src: slice.image, width: slice.width, height: slice.height });
    image.alt = [slice.name, slice.patient && `patient ${slice.patient}`].filter(Boolean).join(", ");
    const canvas = element("canvas", {});
    canvas.setAttribute("aria-hidden", "true");
    paint(canvas, slice, differenceColor(predictedMask(slice, slice.threshold, slice.smallest), slice.truth), TINT);
    const missed = slice.dice === 0 && slice.share > 0;
    const lines = [
      element("b", { title: slice.name }, slice.dice === null ? slice.name : `Dice ${digits(slice.dice)}`),
      missed ? element("em", {}, "missed") : "",
      slice.label ? element("span", {}, slice.label) : "",
      slice.share === null ? "" : element("span", {}, percent(slice.share)),
    ];
    const layers = element("span", { className: "layers" }, image, canvas);
    slice.card = element("button", { type: "button", className: "card", tabIndex: -1 }, layers, ...lines);
    slice.card.addEventListener("click", () => openSlice(slice));
    slice.card.addEventListener("focus", () => makeCurrent(slice));
    slice.item = element("li", {}, slice.card);
  }

  // One card of the grid is a stop of the Tab key; arrows move to the others.
  function makeCurrent(slice) {
    slices.forEach((other) => { other.card.tabIndex = other === slice ? 0 : -1; });
  }

  function compare(one, other) {
    const number = (value, missing) => (value === null ? missing : value);
    const order = {
      worst: () => number(one.dice, 2) - number(other.dice, 2),
      best: () => number(other.dice, -1) - number(one.dice, -1),
      largest: () => number(other.share, -1) - number(one.share, -1),
      smallest: () => number(one.share, 2) - number(other.share, 2),
      patient: () => one.patient.localeCompare(other.patient, "en", { numeric: true }),
      name: () => one.name.localeCompare(other.name, "en", { numeric: true }),
    }[byId("order").value];
    return order() || one.index - other.index;
  }

  function fits(slice) {
    const chosen = ["label", "patient", "size"].every((field) => ["", slice[field]].includes(byId(field).value));
    const [low, high] = ["dice-from", "dice-to"].map((id) => byId(id).valueAsNumber);
    const inside = slice.dice === null || (!(slice.dice < low) && !(slice.dice > high)); // an empty field is no bound
    return chosen && inside;
  }

  function arrange() {
    shown = slices.filter(fits).sort(compare);
    byId("grid").replaceChildren(...shown.map((slice) => slice.item));
    byId("count").textContent = shown.length ? `${shown.length} of ${slices.length} slices.` : "No slice fits.";
    if (shown.length) makeCurrent(shown[0]);
  }

  function fillChoices() {
    for (const field of ["label", "patient", "size"]) {
      const values = [...new Set(slices.map((slice) => slice[field]))].filter(Boolean);
      if (field === "size") values.sort((one, other) => shareOf(one) - shareOf(other));
      else values.sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
      byId(field).append(...values.map((value) => element("option", { value }, value)));
      byId(field).parentElement.hidden = values.length < 2;
    }
    const known = slices.some((slice) => slice.truth);
    if (!known) { // no order by Dice or true tumour
      byId("order").querySelector("[value=worst]").textContent = "as they were predicted";
      for (const value of ["best", "largest", "smallest"]) byId("order").querySelector(`[value=${value}]`).remove();
    }
    if (!slices.some((slice) => slice.patient)) byId("order").querySelector("[value=patient]").remove();
    byId("key").hidden = !known;
    for (const id of ["dice-from", "dice-to"]) byId(id).parentElement.hidden = !slices.some((slice) => slice.dice !== null);
  }

  const shareOf = (size) => Math.min(...slices.filter((slice) => slice.size === size).map((slice) => slice.share));

  function moveInGrid(event) {
    const cards = shown.map((slice) => slice.card), at = cards.indexOf(document.activeElement);
    if (at < 0) return;
    const first = cards.findIndex((card) => card.offsetTop > cards[0].offsetTop);
    const columns = first < 0 ? cards.length : first;
    const target = {
      ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns, Home: 0, End: cards.length - 1,
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    if (cards[target]) cards[target].focus();
  }

  // The viewer.

  function openSlice(slice) {
    open = slice;
    const place = shown.indexOf(slice);
    byId("viewer-title").textContent = `${slice.name} (${place + 1} of ${shown.length})`;
    const facts = [slice.label, slice.patient && `patient ${slice.patient}`, slice.share === null ? "" : percent(slice.share)];
    byId("facts").textContent = facts.filter(Boolean).join(", ");
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place >= shown.length - 1;
    for (const id of ["panel-truth", "panel-difference", "scores", "hint-scores"]) byId(id).hidden = !slice.truth;
    byId("reset-threshold").textContent = `Run’s: ${slice.threshold}`;
    byId("filter-label").hidden = !slice.smallest;
    const percentage = Number((100 * slice.smallest).toPrecision(3));
    byId("filter-text").textContent = `leave out components under ${percentage} % of the image, as the run does`;
    byId("full-text").textContent = `Dice at full size (${slice.fullSize.join(" × ")}), threshold ${slice.threshold}`;
    byId("full-dice").textContent = digits(slice.dice);
    const describe = (panel, text) => {
      const image = byId(`panel-${panel}`).querySelector("img");
      Object.assign(image, { src: slice.image, alt: `${text} of ${slice.name}`, width: slice.width, height: slice.height });
    };
    describe("image", "Image");
    describe("truth", "True mask");
    describe("predicted", "Predicted mask");
    describe("difference", "Difference of the true and the predicted mask");
    describe("probability", "Probability map");
    const canvas = (panel) => byId(`panel-${panel}`).querySelector("canvas");
    if (slice.truth) paint(canvas("truth"), slice, (i) => (slice.truth[i] ? BOTH : null), TINT);
    paint(canvas("probability"), slice, (i) => rampColor(slice.levels[i]), 1);
    update();
    if (!byId("viewer").open) byId("viewer").showModal();
    byId("viewer").scrollTop = 0;
  }

  function update() {
    const slice = open, threshold = chosenThreshold ?? slice.threshold;
    const mask = predictedMask(slice, threshold, byId("filter").checked ? slice.smallest : 0);
    byId("threshold").value = threshold;
    const name = chosenThreshold === null ? String(threshold) : threshold.toFixed(2);
    byId("threshold-value").textContent = name;
    byId("reset-threshold").disabled = chosenThreshold === null;
    const canvas = (panel) => byId(`panel-${panel}`).querySelector("canvas");
    paint(canvas("predicted"), slice, (i) => (mask[i] ? BOTH : null), TINT);
    if (!slice.truth) return;
    paint(canvas("difference"), slice, differenceColor(mask, slice.truth), 0.85);
    byId("small-text").textContent = `Dice at ${slice.width} × ${slice.height}, threshold ${name}`;
    byId("small-dice").textContent = digits(diceOf(mask, slice.truth));
  }

  function step(places) {
    const slice = shown[shown.indexOf(open) + places];
    if (!slice) return;
    openSlice(slice);
    // A button that was just disabled has lost the focus, and with it the keys.
    if (!byId("viewer").contains(document.activeElement) || document.activeElement.disabled) byId("viewer-title").focus();
  }

  // The focus moves at once: the dialog's own close event comes later, and a key in between would go astray.
  function closeViewer() {
    byId("viewer").close();
    open.card.focus();
  }

  function moveInViewer(event) {
    if (event.key === "Escape") {
      event.preventDefault();
      closeViewer();
      return;
    }
    const places = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!places || event.target === byId("threshold")) return;
    event.preventDefault();
    step(places);
  }

  function listen() {
    byId("filters").addEventListener("input", arrange);
    byId("filters").addEventListener("reset", () => setTimeout(arrange)); // the fields are reset after the event
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("grid").addEventListener("keydown", moveInGrid);
    byId("viewer").addEventListener("keydown", moveInViewer);
    byId("close").addEventListener("click", closeViewer);
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    byId("filter").addEventListener("change", update);
    byId("threshold").addEventListener("input", () => {
      chosenThreshold = byId("threshold").valueAsNumber;
      update();
    });
    byId("reset-threshold").addEventListener("click", () => {
      chosenThreshold = null;
      update();
      byId("threshold").focus();
    });
  }

  async function start() {
    await Promise.all(slices.map(async (slice, index) => {
      slice.index = index;
      slice.levels = await inflate(slice.probability);
      slice.truth = slice.truth && unpackBits(await inflate(slice.truth), slice.levels.length);
    }));
    slices.forEach(makeCard);
    fillChoices();
    listen();
    arrange();
  }

  start().catch((error) => {
    byId("problem").hidden = false;
    byId("problem").textContent = `The gallery needs a browser of 2023 or newer (${error}).`;
  });
})();
