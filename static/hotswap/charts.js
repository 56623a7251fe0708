// Charts of numbers over time. The server says what is drawn; axes, units, legend and
// colours are the same everywhere.
"use strict";

(() => {
  const TONES = { green: "#22a559", red: "#dc2626", blue: "#3b82f6", amber: "#f59e0b", grey: "#9ca3af" };
  const SERIES = ["#3b82f6", "#22a559", "#f59e0b", "#8b5cf6", "#0891b2", "#dc2626", "#d946ef", "#9ca3af"];
  const DAY = 24 * 3600 * 1000;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Upright lines with a word: when a stage was opened, and the like.
  const marksOf = (marks) => ({
    id: "hsMarks",
    afterDatasetsDraw(chart) {
      const { ctx, chartArea, scales } = chart;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = chart.options.color;
      ctx.font = "11px sans-serif";
      ctx.setLineDash([4, 4]);
      let taken = -Infinity;
      let row = 0;
      for (const mark of marks) {
        const x = scales.x.getPixelForValue(mark.at);
        if (x < chartArea.left || x > chartArea.right) continue;
        ctx.beginPath();
        ctx.moveTo(x, chartArea.top);
        ctx.lineTo(x, chartArea.bottom);
        ctx.stroke();
        // Names that would run into each other stand below each other.
        row = x < taken ? row + 1 : 0;
        const isAtTheEnd = x > chartArea.right - 70;
        ctx.textAlign = isAtTheEnd ? "right" : "left";
        ctx.fillText(mark.label, x + (isAtTheEnd ? -4 : 4), chartArea.top + 10 + 12 * (row % 4));
        taken = x + ctx.measureText(mark.label).width + 8;
      }
      ctx.restore();
    },
  });

  const draw = (canvas) => {
    const spec = JSON.parse(canvas.dataset.hsChart);
    const isBar = spec.kind === "bar";
    const isArea = spec.kind === "area";
    const points = spec.series.flatMap((each) => each.points);
    const first = Math.min(...points.map((each) => each[0]));
    const last = Math.max(...points.map((each) => each[0]));
    const isShort = last - first <= 1.5 * DAY;
    const clock = (value, isLong) => {
      const text = new Date(value).toISOString();
      if (isLong) return `${text.slice(0, 10)} ${text.slice(11, 19)} UTC`;
      return isShort ? text.slice(11, last - first < 300000 ? 19 : 16) : text.slice(5, 10);
    };
    const said = (value) => `${value.toLocaleString("en", { maximumFractionDigits: 2 })} ${spec.unit}`;
    const datasets = spec.series.map((each, number) => {
      const shade = TONES[each.tone] ?? SERIES[number % SERIES.length];
      return {
        label: each.label,
        data: isBar ? each.points.map((point) => point[1]) : each.points.map(([x, y]) => ({ x, y })),
        borderColor: shade, backgroundColor: isArea || isBar ? `${shade}b3` : shade,
        borderWidth: isBar ? 0 : 2, pointRadius: 0, pointHoverRadius: 4, pointHitRadius: 8,
        fill: isArea ? (number ? "-1" : "origin") : false, spanGaps: false, stepped: spec.isStepped ? "before" : false,
        maxBarThickness: 28, stack: "all",
      };
    });
    const chart = new window.Chart(canvas, {
      type: isBar ? "bar" : "line",
      data: { datasets, ...(isBar ? { labels: spec.series[0].points.map((point) => clock(point[0])) } : {}) },
      options: {
        animation: false, maintainAspectRatio: false, responsive: true,
        interaction: { mode: "index", axis: "x", intersect: false },
        scales: {
          x: {
            ...(isBar ? { stacked: true } : { type: "linear", min: first, max: last }),
            ticks: { ...(isBar ? {} : { callback: (value) => clock(value) }), maxRotation: 0, autoSkip: true, maxTicksLimit: 9, display: true },
            grid: { display: false }, border: { display: true },
          },
          y: {
            display: true, stacked: isBar || isArea, beginAtZero: true, ...(spec.max ? { max: spec.max } : {}),
            title: { display: true, text: spec.unit },
            ticks: { display: true, ...(spec.unit === "%" ? {} : { precision: 0 }) }, grid: { display: true },
          },
        },
        plugins: {
          legend: { display: true, position: "bottom", align: "start", labels: { usePointStyle: true, pointStyle: "rectRounded", boxHeight: 8 } },
          tooltip: {
            enabled: true,
            callbacks: {
              title: (items) => (items.length ? clock(isBar ? spec.series[0].points[items[0].dataIndex][0] : items[0].raw.x, true) : ""),
              label: (item) => `${item.dataset.label}: ${said(item.parsed.y)}`,
            },
          },
        },
      },
      plugins: [marksOf(spec.marks ?? [])],
    });
    const paint = () => {
      chart.options.color = colour("--hs-text") || "#888";
      for (const axis of [chart.options.scales.x, chart.options.scales.y]) {
        axis.ticks.color = chart.options.color;
        axis.grid.color = colour("--hs-line");
      }
      chart.options.scales.y.title.color = chart.options.color;
      chart.options.plugins.legend.labels.color = chart.options.color;
      chart.update("none");
    };
    // The theme may be changed while the page is open.
    const observer = new MutationObserver(paint);
    observer.observe(document.documentElement, { attributeFilter: ["class"] });
    canvas.hsForget = () => {
      observer.disconnect();
      chart.destroy();
    };
    paint();
  };

  document.addEventListener("DOMContentLoaded", () => {
    const drawAll = () => {
      for (const canvas of document.querySelectorAll("canvas[data-hs-chart]")) {
        if (!canvas.hsForget) draw(canvas);
      }
    };
    document.body.addEventListener("htmx:beforeCleanupElement", (event) => event.detail.elt.hsForget?.());
    document.body.addEventListener("htmx:afterSettle", drawAll);
    drawAll();
  });
})();
