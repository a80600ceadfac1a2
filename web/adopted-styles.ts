/**
 * Lets a library style a page whose policy takes no style elements and attributes (`style-src 'self'`): what it puts in
 * such an element goes into a sheet of its own instead, and a `style` attribute is set property by property. The policy
 * allows both: they come from a script that it has let run.
 *
 * For xterm.js, which makes style elements for its colours and sizes, and attributes for 24-bit colours.
 */
export function adoptStyles(document: Document): void {
  const create: (name: string, options?: object) => HTMLElement = document.createElement.bind(document);
  document.createElement = (name: string, options?: object) => {
    if (name === "style") return sheetElement(document, create("template"));
    const element = create(name, options);
    if (name === "span") styleByScript(element);
    return element;
  };
}

function sheetElement(document: Document, element: HTMLElement): HTMLElement {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", {
    set(text: string) {
      sheet.replaceSync(text);
    },
  });
  const remove = element.remove.bind(element);
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((each) => each !== sheet);
    remove();
  };
  return element;
}

function styleByScript(element: HTMLElement): void {
  const set = element.setAttribute.bind(element);
  element.setAttribute = (name, value) => {
    if (name === "style") element.style.cssText = value;
    else set(name, value);
  };
}
