// The map: points of a projection on two canvases, one colour a cluster and one a class. A selected or hovered image is
// the same in both.
(() => {
  const planes = [...document.querySelectorAll("canvas[data-by]")];
  if (!planes.length) return;
  const projection = document.getElementById("projection");
  const asImages = document.getElementById("as-images");
  const tip = document.getElementById("tip");
  const SCALE = 9999, MARGIN = 14;
  let current = null, selected = null, only = null, points = [];

  const groupOf = (by, row) => (by === "class" ? page.classes[row] : page.cluster[row]);
  const colour = (by, row) => (by === "class" ? classColour(page.classes[row]) : colourOf(page.cluster[row]));
  const classColour = (group) => page.classColours[group] || "#8a8a8a";

  function load() {
    const map = page.maps[Number(projection.value)];
    points = map.x.map((x, i) => ({ row: map.members ? map.members[i] : i, x: x / SCALE, y: 1 - map.y[i] / SCALE }));
    current = null;
    draw();
  }

  function at(canvas, point) {
    const width = canvas.clientWidth - 2 * MARGIN;
    return [MARGIN + point.x * width, MARGIN + point.y * width];
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const text = style.getPropertyValue("--text"), back = style.getPropertyValue("--page");
    for (const canvas of planes) {
      const by = canvas.dataset.by, ratio = window.devicePixelRatio || 1, size = canvas.clientWidth;
      if (canvas.width !== Math.round(size * ratio)) canvas.width = canvas.height = Math.round(size * ratio);
      const pen = canvas.getContext("2d");
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, size, size);
      pen.imageSmoothingEnabled = !page.sheet || page.sheet.side > 40;
      const images = asImages && asImages.checked && page.sheet;
      const radius = points.length > 3000 ? 2 : points.length > 800 ? 2.7 : 3.5;
      const side = Math.max(12, Math.min(28, size / 22));
      for (const point of points) {
        const [x, y] = at(canvas, point);
        pen.globalAlpha = only && (only.by !== by || only.group !== groupOf(by, point.row)) ? 0.07 : 0.85;
        pen.fillStyle = colour(by, point.row);
        if (images && !missing.has(point.row)) {
          pen.fillRect(x - side / 2 - 1.5, y - side / 2 - 1.5, side + 3, side + 3);
          drawImage(pen, point.row, x - side / 2, y - side / 2, side);
        } else {
          pen.beginPath();
          pen.arc(x, y, radius, 0, 7);
          pen.fill();
        }
      }
      pen.globalAlpha = 1;
      for (const [row, width] of [[selected, 3], [current ? current.row : null, 2]]) {
        const point = row === null ? null : points.find((each) => each.row === row);
        if (!point) continue;
        const [x, y] = at(canvas, point);
        for (const [ink, line] of [[back, width + 3], [text, width]]) {
          pen.strokeStyle = ink;
          pen.lineWidth = line;
          pen.beginPath();
          pen.arc(x, y, 8, 0, 7);
          pen.stroke();
        }
      }
    }
  }

  function drawImage(pen, row, x, y, size) {
    const { side, columns, each } = page.sheet, place = row % each;
    const left = side * (place % columns), top = side * Math.floor(place / columns);
    pen.drawImage(sheets[Math.floor(row / each)], left, top, side, side, x, y, size, size);
  }

  function nearest(canvas, x, y, reach) {
    let best = null, least = reach * reach;
    for (const point of points) {
      const [px, py] = at(canvas, point), d = (px - x) ** 2 + (py - y) ** 2;
      if (d < least) [best, least] = [point, d];
    }
    return best;
  }

  function showTip(canvas, point) {
    if (!point) {
      tip.hidden = true;
      return;
    }
    const image = thumb(point.row);
    const lines = page.sheet ? [make("div", { text: page.names[point.row] })] : [];
    tip.replaceChildren(image, ...lines, make("div", { text: describe(point.row) }));
    tip.hidden = false;
    const box = canvas.getBoundingClientRect(), [x, y] = at(canvas, point);
    tip.style.left = `${Math.max(4, Math.min(box.left + x + 14, window.innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(box.top + y + 14, window.innerHeight - tip.offsetHeight - 4))}px`;
  }

  function go(canvas, point) {
    if (point === current) return;
    current = point;
    draw();
    showTip(canvas, point);
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  // The nearest point within 45 degrees of the arrow's direction.
  function step(from, [dx, dy]) {
    let best = null, least = Infinity;
    for (const point of points) {
      const ahead = (point.x - from.x) * dx + (point.y - from.y) * dy;
      const aside = Math.abs((point.x - from.x) * dy) + Math.abs((point.y - from.y) * dx);
      if (point === from || ahead <= 0 || aside > ahead) continue;
      const d = ahead * ahead + aside * aside;
      if (d < least) [best, least] = [point, d];
    }
    return best || from;
  }

  for (const canvas of planes) {
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointermove", (event) => go(canvas, nearest(canvas, ...place(event), 24)));
    canvas.addEventListener("pointerleave", () => go(canvas, null));
    canvas.addEventListener("click", (event) => {
      const found = nearest(canvas, ...place(event), 24);
      if (found) inspect(found.row);
    });
    canvas.addEventListener("keydown", (event) => {
      if (ARROWS[event.key]) {
        event.preventDefault();
        go(canvas, current ? step(current, ARROWS[event.key]) : points[0]);
      } else if ((event.key === "Enter" || event.key === " ") && current) {
        event.preventDefault();
        inspect(current.row);
      } else if (event.key === "Escape") go(canvas, null);
    });
    canvas.addEventListener("blur", () => go(canvas, null));
  }

  for (const list of document.querySelectorAll("ul[data-keys]")) {
    const by = list.dataset.keys;
    const groups = [...new Set(by === "class" ? page.classes : page.cluster)].sort((a, b) => a - b).slice(0, 60);
    for (const group of groups) {
      const name = group < 0 ? "none" : by === "class" ? page.classNames[group] : String(group);
      const swatch = make("span", { className: "swatch" });
      swatch.style.background = by === "class" ? classColour(group) : colourOf(group);
      const button = make("button", { type: "button", "aria-pressed": "false", title: "Show this one alone" }, swatch, name);
      button.addEventListener("click", () => {
        const off = only && only.by === by && only.group === group;
        only = off ? null : { by, group };
        for (const other of document.querySelectorAll("ul[data-keys] button")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(!off));
        draw();
      });
      list.append(make("li", {}, button));
    }
  }

  projection.addEventListener("change", load);
  if (asImages) asImages.addEventListener("change", draw);
  document.addEventListener("selected", (event) => {
    selected = event.detail;
    draw();
  });
  document.addEventListener("pictures", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(planes[0]);
  window.addEventListener("scroll", () => showTip(planes[0], null), { passive: true });
  load();
})();
