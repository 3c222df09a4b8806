// The cache as it moves: a column a second, its tokens by kind from below, over the last two minutes.

const KINDS = { vision: "--vision", turns: "--turns", "previous text": "--previous", system: "--system" };
const COLUMNS = 120;

export class CacheFigure {
  constructor(figure) {
    this.canvas = figure.querySelector("canvas");
    this.caption = figure.querySelector("figcaption");
    this.columns = [];
  }

  /** usage: {kind: [used, limit]} after one more second. */
  add(usage) {
    if (!usage || !Object.keys(usage).length) return;
    this.columns.push(usage);
    if (this.columns.length > COLUMNS) this.columns.shift();
    this.draw();
    this.tell(usage);
  }

  draw() {
    const { canvas } = this;
    const context = canvas.getContext("2d");
    const style = getComputedStyle(document.documentElement);
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    // As tall as the fullest second so far: caches have room for questions and long prompts that most streams never use.
    const total = (usage) => Object.values(usage).reduce((sum, [used]) => sum + used, 0);
    const limit = 1.15 * Math.max(...this.columns.map(total));
    const step = width / COLUMNS;
    this.columns.forEach((usage, i) => {
      let base = height;
      for (const [kind, color] of Object.entries(KINDS)) {
        const tall = ((usage[kind]?.[0] || 0) / limit) * height;
        context.fillStyle = style.getPropertyValue(color);
        context.fillRect(width - (this.columns.length - i) * step, base - tall, step - 0.5, tall);
        base -= tall;
      }
    });
  }

  tell(usage) {
    this.caption.replaceChildren(...Object.entries(KINDS).filter(([kind]) => usage[kind]).map(([kind, color]) => {
      const item = document.createElement("span");
      const mark = document.createElement("i");
      mark.style.background = `var(${color})`;
      item.append(mark, `${kind} ${usage[kind][0]}/${usage[kind][1]}`);
      return item;
    }));
  }
}
