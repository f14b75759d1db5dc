// The tree of merges, cut at the number of clusters that the slider says: the clusters of the cut, and the pairs that the
// merge before it joined and the merge after it will join.
(() => {
  const slider = document.getElementById("cut");
  if (!page.tree || !slider) return;
  const { sizes, children, affinities, leaves } = page.tree;
  const count = document.getElementById("count");
  const first = sizes.length, merges = affinities.length, fewest = first - merges;
  const LISTED = 40, IMAGES = 16, PAIR = 12;

  // Sizes of all nodes, and the images of the page in each first cluster.
  const size = sizes.concat(affinities.map(() => 0));
  for (let t = 0; t < merges; t++) size[first + t] = size[children[2 * t]] + size[children[2 * t + 1]];
  const own = sizes.map(() => []);
  leaves.forEach((leaf, row) => own[leaf].push(row));

  function imagesOf(node, most) {
    const found = [], waiting = [node];
    while (waiting.length && found.length < most) {
      const each = waiting.pop();
      if (each < first) found.push(...own[each]);
      else waiting.push(children[2 * (each - first) + 1], children[2 * (each - first)]);
    }
    return found.slice(0, most);
  }

  // Nodes that are not part of another after so many merges.
  function rootsAfter(t) {
    const inside = new Uint8Array(first + t);
    for (let i = 0; i < 2 * t; i++) inside[children[i]] = 1;
    const roots = [];
    for (let node = 0; node < first + t; node++) if (!inside[node]) roots.push(node);
    return roots.sort((a, b) => size[b] - size[a] || a - b);
  }

  // Images from all over a node: every so-manieth of those on the page, so that a mixture shows.
  function spread(node, most) {
    const all = imagesOf(node, Infinity), wanted = Math.min(most, all.length);
    return Array.from({ length: wanted }, (_, i) => all[Math.floor((i * all.length) / wanted)]);
  }

  function pair(t, title) {
    const box = make("div", { className: "pair" }, make("h4", { text: title }));
    if (t < 0 || t >= merges) {
      box.append(make("p", { className: "note", text: "None: the tree ends here." }));
      return box;
    }
    const halves = [children[2 * t], children[2 * t + 1]].map((node) => {
      const thumbs = make("div", { className: "thumbs" });
      showThumbs(thumbs, spread(node, PAIR));
      const images = size[node] === 1 ? "image" : "images";
      return make("div", {}, make("p", { className: "note", text: `${size[node].toLocaleString("en")} ${images}` }), thumbs);
    });
    box.append(make("div", {}, halves[0], make("span", { className: "plus", text: "+" }), halves[1]));
    box.append(make("p", { className: "note", text: `affinity ${affinities[t]}` }));
    return box;
  }

  function show(clusters) {
    const t = first - clusters;
    document.getElementById("pairs").replaceChildren(
      pair(t - 1, `The merge before: ${clusters + 1} to ${clusters}`),
      pair(t, `The merge after: ${clusters} to ${clusters - 1}`),
    );
    const roots = rootsAfter(t);
    const lines = roots.slice(0, LISTED).map((node) => {
      const thumbs = make("div", { className: "thumbs" });
      showThumbs(thumbs, spread(node, IMAGES));
      return make("div", { className: "group" }, make("span", { className: "size", text: words(node) }), thumbs);
    });
    const rest = roots.slice(LISTED);
    if (rest.length) {
      const text = `and ${rest.length.toLocaleString("en")} more of ${size[rest[0]].toLocaleString("en")} images at most`;
      lines.push(make("p", { className: "note", text }));
    }
    document.getElementById("groups").replaceChildren(...lines);
  }

  function words(node) {
    const text = `${size[node].toLocaleString("en")} ${size[node] === 1 ? "image" : "images"}`;
    if (!page.classes) return text;
    const rows = imagesOf(node, Infinity).filter((row) => page.classes[row] >= 0), counts = new Map();
    for (const row of rows) counts.set(page.classes[row], (counts.get(page.classes[row]) || 0) + 1);
    const [best, number] = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0] || [null, 0];
    return best === null ? text : `${text}, ${Math.round((100 * number) / rows.length)} % class ${page.classNames[best]}`;
  }

  // The slider is logarithmic: 10 or 11 clusters is a choice, 1000 or 1001 is none.
  const range = Math.log(first / fewest) || 1;
  const toSlider = (clusters) => Math.round((1000 * Math.log(clusters / fewest)) / range);
  const fromSlider = (value) => Math.round(fewest * Math.exp((range * value) / 1000));

  slider.addEventListener("input", () => {
    count.value = fromSlider(Number(slider.value));
    slider.setAttribute("aria-valuetext", `${count.value} clusters`);
    show(Number(count.value));
  });
  // A step of the keyboard is one cluster, where a step of the slider would be a part of one.
  slider.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    set(Number(count.value) + by);
  });
  count.addEventListener("change", () => set(Number(count.value) || fewest));

  function set(clusters) {
    count.value = Math.max(fewest, Math.min(first, Math.round(clusters)));
    slider.value = toSlider(Number(count.value));
    slider.setAttribute("aria-valuetext", `${count.value} clusters`);
    show(Number(count.value));
  }

  document.addEventListener("pictures", () => set(Number(count.value)));
})();
