// Draws all heads of all layers as small pictures, and one of them large. The bytes' format is written in payload.py
// beside this file.
// Everything drawn here comes from 8-bit codes, so nothing drawn here becomes a number: what is printed (measures,
// positions) came as float32 or as whole numbers.

const MOST_CELL = 84
const LEAST_CELL = 24
const WIDE_CELL = 36
// A grid of many layers is kept about this high, in pixels, as long as its cells are not too small.
const HEIGHT = 620
const LARGE = 480
const SMALL = 200
// Narrower than this, the large picture goes below the grid.
const WIDE = 720
const NONE = "none"
const HINT = "A picture only. Point at a cell for its tokens; a click chooses it."

const chunks = (window[Symbol.for("head_grid.chunks")] ??= new Set())
const selections = (window[Symbol.for("head_grid.selections")] ??= new Map())
const grids = new WeakMap()

function decode(bytes, wanted) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  checkMagic(bytes, wanted)
  const length = view.getUint32(4, true)
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)))
  return { head, view, start: 8 + length + ((4 - (length % 4)) % 4) }
}

function decodeFrame(bytes) {
  const { head, view, start } = decode(bytes, "HGF1")
  const n = head.n_layers * head.n_heads
  head.measures.forEach((measure, m) => {
    measure.values = Float32Array.from({ length: n }, (_, i) => view.getFloat32(start + 4 * (m * n + i), true))
  })
  return head
}

function make(tag, className, parent, attributes = {}) {
  const element = document.createElement(tag)
  if (className) element.className = className
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  parent?.append(element)
  return element
}

function channels(colour) {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })
  context.fillStyle = colour
  context.fillRect(0, 0, 1, 1)
  return [...context.getImageData(0, 0, 1, 1).data.subarray(0, 3)]
}

// Colours of the 256 codes as little-endian RGBA: 0 (closed by the mask) is clear, 1 to 255 go from weight 0 to 1.
function palette(stops) {
  const colours = new Uint32Array(256)
  for (let code = 1; code < 256; code++) {
    const place = ((code - 1) / 254) * (stops.length - 1)
    const from = Math.min(stops.length - 2, Math.floor(place))
    const [r, g, b] = stops[from].map((c, i) => Math.round(c + (stops[from + 1][i] - c) * (place - from)))
    colours[code] = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0
  }
  return colours
}

// A triangle of codes as a square picture of `size` pixels: enlarged cell by cell, or thinned by maximum, so that a
// thin diagonal survives.
function picture(codes, side, size) {
  const out = new Uint8Array(size * size)
  if (side <= size) {
    for (let y = 0; y < size; y++) {
      const row = Math.floor((y * side) / size)
      const start = (row * (row + 1)) / 2
      for (let x = 0; x < size; x++) {
        const column = Math.floor((x * side) / size)
        if (column > row) break
        out[y * size + x] = codes[start + column]
      }
    }
    return out
  }
  const place = Uint16Array.from({ length: side }, (_, i) => Math.floor((i * size) / side))
  let at = 0
  for (let row = 0; row < side; row++) {
    const line = place[row] * size
    for (let column = 0; column <= row; column++) {
      const code = codes[at++]
      const target = line + place[column]
      if (code > out[target]) out[target] = code
    }
  }
  return out
}

function paintedWith(colours, codes, size) {
  const pixels = new Uint32Array(codes.length)
  for (let i = 0; i < codes.length; i++) pixels[i] = colours[codes[i]]
  return new ImageData(new Uint8ClampedArray(pixels.buffer), size, size)
}

function valueOf(measure, number) {
  const value = measure.values[number]
  return Number.isNaN(value) ? "none" : String(Number(value.toPrecision(4)))
}

export default function grid({ data, parentElement, setTriggerValue }) {
  const { one, leave } = mounted(grids, parentElement, Grid)
  one.report = choice => setTriggerValue("chosen", choice)
  one.tellOrder = arrangement => setTriggerValue("arranged", arrangement)
  one.update(asBytes(data))
  return leave
}

class Grid {
  constructor(parent) {
    this.root = make("div", "heads", parent, { dir: "ltr", "data-drawn": "0", "data-frames": "0" })
    const bar = make("div", "bar", this.root)
    this.measureBox = make("label", "field", bar)
    make("span", "", this.measureBox).textContent = "Measure"
    this.measureChoice = make("select", "measure", this.measureBox)
    this.orderBox = make("label", "field", bar)
    make("span", "", this.orderBox).textContent = "Order"
    this.orderChoice = make("select", "order", this.orderBox)
    for (const [value, text] of [
      ["layers", "layer by layer"],
      ["highest", "highest first"],
      ["lowest", "lowest first"],
    ]) {
      make("option", "", this.orderChoice, { value }).textContent = text
    }
    const legend = make("div", "legend", bar)
    make("span", "", legend).textContent = "attention 0"
    this.ramp = make("canvas", "ramp", legend, { width: 254, height: 1, "aria-hidden": "true" })
    make("span", "", legend).textContent = "1"
    this.definition = make("p", "definition", this.root)

    this.body = make("div", "body", this.root)
    this.scroll = make("div", "scroll", this.body)
    this.board = make("div", "board", this.scroll, { role: "grid" })
    this.canvas = make("canvas", "pictures", this.board, { "aria-hidden": "true" })
    this.side = make("div", "side", this.body)
    this.title = make("div", "title", this.side)
    this.stage = make("div", "stage", this.side)
    this.large = make("canvas", "large", this.stage, { tabindex: "0", role: "application" })
    this.where = make("div", "where", this.side, { "aria-live": "polite" })
    this.where.textContent = HINT
    this.values = make("dl", "values", this.side)
    this.note = make("p", "note", this.root)

    this.buttons = []
    this.pictures = new Map()
    this.cells = new Map()
    this.frameSum = ""
    this.wanted = { measure: NONE, order: "layers" } // also while the measures are not there yet
    this.saidOrder = "" // what the page last said of it
    this.active = 0 // place of the one button that Tab reaches
    this.looked = null // head under the pointer or the focus
    this.locked = null // head that was clicked, or that the page shows
    this.cell = null // {query, key} that was chosen
    this.over = null // {query, key} under the pointer or the keys

    const place = event => {
      const button = event.target.closest?.("[data-place]")
      return button ? Number(button.dataset.place) : null
    }
    this.board.addEventListener("pointerover", event => {
      const i = place(event)
      if (i !== null) this.look(this.order[i])
    })
    this.board.addEventListener("pointerleave", () => this.look(this.focused()))
    this.board.addEventListener("focusin", event => {
      const i = place(event)
      if (i === null) return
      this.moveTo(i)
      this.look(this.order[i])
    })
    this.board.addEventListener("focusout", () => this.look(null))
    this.board.addEventListener("click", event => {
      const i = place(event)
      if (i !== null) this.choose(this.order[i])
    })
    this.board.addEventListener("keydown", event => this.onBoardKey(event))
    for (const choice of [this.measureChoice, this.orderChoice]) {
      choice.addEventListener("change", () => {
        this.wanted = { measure: this.measure?.name ?? NONE, order: this.orderChoice.value }
        this.arrange()
        this.tellOrder(this.wanted)
      })
    }
    this.large.addEventListener("pointermove", event => this.point(this.cellAt(event)))
    this.large.addEventListener("pointerleave", () => this.point(null))
    this.large.addEventListener("click", event => this.chooseCell(this.cellAt(event)))
    this.large.addEventListener("keydown", event => this.onLargeKey(event))
    this.large.addEventListener("blur", () => this.point(null))

    // The page's colours come as variables; when they change, this element's colour runs through a short transition.
    this.root.addEventListener("transitionend", event => {
      if (event.target === this.root) this.paintAll()
    })
    this.onCells = event => this.take(event.detail)
    this.onSelection = event => {
      if (event.detail === this.frame?.grid) this.follow()
    }
    document.addEventListener("head_grid.cells", this.onCells)
    document.addEventListener("head_grid.selection", this.onSelection)
    this.observer = new ResizeObserver(() => this.layOut())
    this.observer.observe(this.root)
  }

  remove() {
    this.observer.disconnect()
    document.removeEventListener("head_grid.cells", this.onCells)
    document.removeEventListener("head_grid.selection", this.onSelection)
    this.root.remove()
  }

  update(bytes) {
    const sum = crc32(bytes)
    if (sum !== this.frameSum) {
      this.frameSum = sum
      this.root.dataset.frames = String(Number(this.root.dataset.frames) + 1)
      this.setFrame(decodeFrame(bytes))
    }
    for (const chunk of chunks) this.take(chunk)
    this.follow()
  }

  setFrame(frame) {
    const former = this.frame
    this.frame = frame
    this.root.dataset.run = frame.run
    if (former?.run !== frame.run || former.n_layers !== frame.n_layers) {
      this.cells.clear()
      this.pictures.clear()
      this.locked = this.looked = this.cell = this.over = null
      this.active = 0
      this.root.dataset.drawn = "0"
      delete this.root.dataset.cells
    }
    this.measureChoice.replaceChildren()
    make("option", "", this.measureChoice, { value: "-1" }).textContent = NONE
    frame.measures.forEach(({ title }, i) => {
      make("option", "", this.measureChoice, { value: String(i) }).textContent = title
    })
    this.measureBox.hidden = this.orderBox.hidden = frame.measures.length === 0
    this.board.setAttribute("aria-label", `All heads: ${frame.n_layers} layers of ${frame.n_heads} heads`)
    const { step } = frame
    this.note.textContent =
      "Pictures only, 8 bits a cell" +
      (step > 1 ? `, each the largest weight of ${step} × ${step}` : "") +
      ": no number is read from them. Rows look (queries), columns are looked at (keys)."
    this.arrangeAsWanted()
  }

  arrangeAsWanted() {
    const place = this.frame.measures.findIndex(({ name }) => name === this.wanted.measure)
    this.measureChoice.value = String(place)
    this.orderChoice.value = this.wanted.order
    this.arrange()
  }

  // The measure that is chosen, if any.
  get measure() {
    return this.frame.measures[Number(this.measureChoice.value)] ?? null
  }

  // Put the heads in order; `order[place]` is a head's number, layer * n_heads + head.
  arrange() {
    const { frame, measure } = this
    const n = frame.n_layers * frame.n_heads
    this.orderChoice.disabled = measure === null
    const order = Array.from({ length: n }, (_, i) => i)
    this.sorted = measure !== null && this.orderChoice.value !== "layers"
    if (this.sorted) {
      const sign = this.orderChoice.value === "highest" ? -1 : 1
      const rank = i => (Number.isNaN(measure.values[i]) ? Infinity : sign * measure.values[i])
      order.sort((a, b) => (rank(a) === rank(b) ? a - b : rank(a) - rank(b)))
    }
    this.order = order
    this.definition.textContent =
      (measure?.definition ?? "") + (this.sorted ? " Beside each picture: layer.head." : "")
    this.definition.hidden = measure === null
    this.fillBoard()
    this.layOut(true)
    this.mark()
  }

  fillBoard() {
    const { frame, measure, order } = this
    const hadFocus = this.buttons.includes(this.root.getRootNode().activeElement)
    // Marks begin at 0, as the colours of the page's figures of the same measures do.
    let high = 0
    for (const value of measure?.values ?? []) if (value > high) high = value
    const page = document.createDocumentFragment()
    page.append(this.canvas)
    this.buttons = []
    const across = make("div", "row", page, { role: "row" })
    make("span", "corner", across, { role: "columnheader" }).textContent = this.sorted ? "" : "layer"
    for (let head = 0; head < frame.n_heads; head++) {
      make("span", "name column", across, { role: "columnheader" }).textContent = this.sorted ? "" : `${head}`
    }
    for (let row = 0; row < frame.n_layers; row++) {
      const line = make("div", "row", page, { role: "row" })
      make("span", "name", line, { role: "rowheader" }).textContent = this.sorted ? "" : `${row}`
      for (let column = 0; column < frame.n_heads; column++) {
        const i = row * frame.n_heads + column
        const number = order[i]
        const button = make("button", "head", line, {
          type: "button",
          role: "gridcell",
          tabindex: "-1",
          "aria-selected": "false",
          "aria-label": this.nameOf(number),
          "data-place": i,
          "data-layer": Math.floor(number / frame.n_heads),
          "data-head": number % frame.n_heads,
        })
        if (this.sorted) {
          make("span", "tag", button, { "aria-hidden": "true" }).textContent =
            `${Math.floor(number / frame.n_heads)}.${number % frame.n_heads}`
        }
        if (measure) {
          const value = measure.values[number]
          const share = high > 0 ? Math.max(0, value) / high : 0
          const mark = make("span", "mark", button, { "aria-hidden": "true" })
          if (Number.isNaN(value)) mark.hidden = true
          else mark.style.setProperty("--share", share.toFixed(4))
        }
        this.buttons.push(button)
      }
    }
    this.board.replaceChildren(page)
    this.root.classList.toggle("measured", measure !== null)
    this.root.classList.toggle("sorted", this.sorted)
    const kept = this.locked === null ? -1 : order.indexOf(this.locked)
    this.active = kept >= 0 ? kept : Math.min(this.active, this.buttons.length - 1)
    this.buttons[this.active].tabIndex = 0
    if (hadFocus) this.buttons[this.active].focus()
  }

  nameOf(number) {
    const { frame, measure } = this
    const name = `layer ${Math.floor(number / frame.n_heads)}, head ${number % frame.n_heads}`
    return measure ? `${name}, ${measure.title} ${valueOf(measure, number)}` : name
  }

  // Every measure of the head that is large, also of those by which the grid is not marked.
  showValues(number) {
    for (const measure of this.frame.measures) {
      if (measure === this.measure) continue
      const pair = make("div", "", this.values)
      make("dt", "", pair).textContent = measure.title
      make("dd", "", pair).textContent = valueOf(measure, number)
    }
  }

  // Sizes in pixels, from the room that there is.
  layOut(always = false) {
    if (!this.frame) return
    const room = this.root.clientWidth
    const ratio = window.devicePixelRatio
    if (!room || (!always && room === this.room && ratio === this.ratio)) return
    this.room = room
    this.ratio = ratio
    const { n_heads, n_layers } = this.frame
    const wide = room >= WIDE
    this.root.classList.toggle("wide", wide)
    const names = 34
    let size = Math.floor(wide ? Math.min(LARGE, Math.max(260, room * 0.36)) : Math.min(LARGE, room))
    const boardRoom = (wide ? room - size - 24 : room) - names
    const fits = Math.floor(boardRoom / n_heads)
    const low = Math.max(wide ? WIDE_CELL : LEAST_CELL, Math.floor(HEIGHT / n_layers))
    this.cellSize = Math.max(LEAST_CELL, Math.min(fits, MOST_CELL, low))
    // Where a narrow screen cannot show grid and large picture at once, the picture is small and stays above.
    const tall = !wide && n_layers * this.cellSize > HEIGHT * 0.7
    this.root.classList.toggle("tall", tall)
    if (tall) size = Math.min(size, SMALL)
    if (wide) size = Math.min(LARGE, Math.max(size, room - names - n_heads * this.cellSize - 30))
    this.size = size
    this.root.classList.toggle("roomy", this.cellSize >= 50)
    this.root.classList.toggle("tight", this.cellSize < 40)
    this.root.style.setProperty("--cell", `${this.cellSize}px`)
    this.root.style.setProperty("--names", `${names}px`)
    this.root.style.setProperty("--heads", n_heads)
    this.root.style.setProperty("--size", `${size}px`)
    this.pictures.clear()
    this.large.width = this.large.height = Math.round(size * ratio)
    this.paintAll()
  }

  // Cells that arrived, if they are this grid's and new.
  take(bytes) {
    if (!this.frame) return
    const { head, start } = decode(bytes, "HGC1")
    const { frame } = this
    if (head.grid !== frame.grid || head.run !== frame.run || head.n_heads !== frame.n_heads) return
    const length = (head.side * (head.side + 1)) / 2
    const first = head.layer * frame.n_heads
    const fresh = Array.from({ length: head.n_layers * head.n_heads }, (_, i) => i).filter(
      i => !this.cells.has(first + i),
    )
    if (!fresh.length) return
    this.cellSide = head.side
    this.root.dataset.cells = [this.root.dataset.cells, crc32(bytes.subarray(start))].filter(Boolean).join(" ")
    for (const i of fresh) this.cells.set(first + i, bytes.subarray(start + i * length, start + (i + 1) * length))
    for (const i of fresh) this.paint(first + i)
    this.paintLarge()
  }

  readTheme() {
    const style = getComputedStyle(this.root)
    const colour = name => channels(style.getPropertyValue(name).trim())
    this.colours = palette([
      colour("--st-secondary-background-color"),
      colour("--st-primary-color"),
      colour("--st-text-color"),
    ])
    this.ink = style.getPropertyValue("--st-text-color").trim()
    this.paper = style.getPropertyValue("--st-background-color").trim()
    const ramp = new ImageData(new Uint8ClampedArray(this.colours.slice(1, 255).buffer), 254, 1)
    this.ramp.getContext("2d").putImageData(ramp, 0, 0)
  }

  paintAll() {
    if (!this.frame || !this.cellSize) return
    this.readTheme()
    const { n_heads, n_layers } = this.frame
    const ratio = this.ratio
    this.canvas.width = Math.round(n_heads * this.cellSize * ratio)
    this.canvas.height = Math.round(n_layers * this.rowHeight() * ratio)
    this.canvas.style.height = `${n_layers * this.rowHeight()}px`
    for (const number of this.cells.keys()) this.paint(number)
    this.paintLarge()
  }

  rowHeight() {
    return this.cellSize + (this.measure ? 5 : 0)
  }

  paint(number) {
    const codes = this.cells.get(number)
    if (!codes || !this.cellSize) return
    const { n_heads } = this.frame
    const place = this.sorted ? this.order.indexOf(number) : number
    const size = Math.max(1, Math.round((this.cellSize - 4) * this.ratio))
    let drawn = this.pictures.get(number)
    if (!drawn) {
      drawn = picture(codes, this.cellSide, size)
      this.pictures.set(number, drawn)
    }
    const x = Math.round(((place % n_heads) * this.cellSize + 2) * this.ratio)
    const y = Math.round((Math.floor(place / n_heads) * this.rowHeight() + 2) * this.ratio)
    this.canvas.getContext("2d").putImageData(paintedWith(this.colours, drawn, size), x, y)
    const nDrawn = this.pictures.size
    this.root.dataset.drawn = String(nDrawn)
    this.board.setAttribute("aria-busy", String(nDrawn < this.buttons.length))
  }

  // The head that the large picture shows.
  get shown() {
    return this.looked ?? this.locked
  }

  paintLarge() {
    if (!this.frame || !this.size) return
    const number = this.shown
    const context = this.large.getContext("2d")
    const full = this.large.width
    context.clearRect(0, 0, full, full)
    this.root.dataset.shown = number === null ? "" : String(number)
    this.title.replaceChildren()
    this.values.replaceChildren()
    if (number === null) {
      this.title.textContent = "Point at a head, or choose one."
      return
    }
    const { frame } = this
    const name = make("strong", "", this.title)
    name.textContent = `Layer ${Math.floor(number / frame.n_heads)}, head ${number % frame.n_heads}`
    if (this.measure) {
      make("span", "value", this.title).textContent = `${this.measure.title}: ${valueOf(this.measure, number)}`
    }
    this.showValues(number)
    this.large.setAttribute(
      "aria-label",
      `Large picture of ${this.nameOf(number)}. Arrow keys move over its cells, Enter chooses query and key.`
    )
    const codes = this.cells.get(number)
    if (!codes) return
    const side = this.cellSide
    const scale = full / frame.n_tokens
    // On a small screen a long text's cells are thinned again, before the canvas would leave some out.
    const reach = (side * frame.step) / frame.n_tokens
    const n = Math.min(side, Math.floor(full * reach))
    const small = (this.small ??= document.createElement("canvas"))
    if (small.width !== n) small.width = small.height = n
    small.getContext("2d").putImageData(paintedWith(this.colours, picture(codes, side, n), n), 0, 0)
    context.imageSmoothingEnabled = false
    // The last cells may reach beyond the text; what is beyond is cut off.
    context.drawImage(small, 0, 0, full * reach, full * reach)
    if (number === this.locked && this.cell) this.outline(context, this.cell, scale, true)
    if (this.over) this.outline(context, this.over, scale, false)
  }

  // A frame around a cell, in ink within paper, so that it is seen on any colour; with its row and column if chosen.
  outline(context, { query, key }, scale, chosen) {
    const size = Math.max(scale, 6 * this.ratio)
    const x = (key + 0.5) * scale - size / 2
    const y = (query + 0.5) * scale - size / 2
    if (chosen) {
      context.globalAlpha = 0.55
      context.lineWidth = this.ratio
      context.strokeStyle = this.ink
      context.setLineDash([3 * this.ratio, 3 * this.ratio])
      context.beginPath()
      context.moveTo(0, (query + 0.5) * scale)
      context.lineTo(x, (query + 0.5) * scale)
      context.moveTo((key + 0.5) * scale, y + size)
      context.lineTo((key + 0.5) * scale, this.large.height)
      context.stroke()
      context.setLineDash([])
      context.globalAlpha = 1
    }
    context.lineWidth = 3 * this.ratio
    context.strokeStyle = this.paper
    context.strokeRect(x, y, size, size)
    context.lineWidth = (chosen ? 2 : 1) * this.ratio
    context.strokeStyle = this.ink
    context.strokeRect(x, y, size, size)
  }

  look(number) {
    if (this.looked === number) return
    this.looked = number
    this.paintLarge()
  }

  // The head of the button that has the keyboard's focus.
  focused() {
    const element = this.root.getRootNode().activeElement
    const i = this.buttons.indexOf(element)
    return i >= 0 && element.matches(":focus-visible") ? this.order[i] : null
  }

  moveTo(place) {
    this.buttons[this.active].tabIndex = -1
    this.active = place
    this.buttons[place].tabIndex = 0
  }

  choose(number) {
    this.moveTo(this.order.indexOf(number))
    this.locked = number
    this.mark()
    const { n_heads } = this.frame
    this.report({ layer: Math.floor(number / n_heads), head: number % n_heads })
  }

  chooseCell(cell) {
    if (cell === null || this.locked === null) return
    this.cell = cell
    this.paintLarge()
    const { n_heads } = this.frame
    this.report({ layer: Math.floor(this.locked / n_heads), head: this.locked % n_heads, ...cell })
  }

  // What the page shows, as it says so itself.
  follow() {
    const said = selections.get(this.frame.grid)
    if (!said) return
    const order = JSON.stringify([said.measure, said.order])
    if (said.measure !== undefined && order !== this.saidOrder) {
      this.saidOrder = order
      this.wanted = { measure: said.measure, order: said.order }
      this.arrangeAsWanted()
    }
    this.locked = said.layer * this.frame.n_heads + said.head
    this.cell = said.query === null || said.key === null ? null : { query: said.query, key: said.key }
    if (!this.buttons.includes(this.root.getRootNode().activeElement)) this.moveTo(this.order.indexOf(this.locked))
    this.mark()
  }

  mark() {
    this.buttons.forEach((button, i) => {
      const chosen = String(this.order[i] === this.locked)
      if (button.getAttribute("aria-selected") !== chosen) button.setAttribute("aria-selected", chosen)
    })
    this.paintLarge()
  }

  onBoardKey(event) {
    const { n_heads } = this.frame
    const last = this.buttons.length - 1
    const row = this.active - (this.active % n_heads)
    const target = {
      ArrowLeft: this.active - 1,
      ArrowRight: this.active + 1,
      ArrowUp: this.active - n_heads,
      ArrowDown: this.active + n_heads,
      Home: event.ctrlKey ? 0 : row,
      End: event.ctrlKey ? last : row + n_heads - 1,
    }[event.key]
    if (target === undefined) return
    event.preventDefault()
    if (target < 0 || target > last) return
    this.moveTo(target)
    this.buttons[target].focus()
  }

  cellAt(event) {
    const box = this.large.getBoundingClientRect()
    const { n_tokens } = this.frame
    const place = (at, from) => Math.min(n_tokens - 1, Math.max(0, Math.floor(((at - from) / box.width) * n_tokens)))
    const query = place(event.clientY, box.top)
    const key = place(event.clientX, box.left)
    return key <= query ? { query, key } : null
  }

  point(cell) {
    if (cell?.query === this.over?.query && cell?.key === this.over?.key) return
    this.over = cell
    this.where.replaceChildren()
    if (!cell) this.where.textContent = HINT
    if (cell) {
      for (const [role, position] of [
        ["query", cell.query],
        ["key", cell.key],
      ]) {
        const line = make("div", "", this.where)
        line.append(`${role} ${position} `)
        make("bdi", "", line).textContent = this.frame.labels[position]
      }
    }
    this.paintLarge()
  }

  onLargeKey(event) {
    const from = this.over ?? this.cell
    const last = this.frame.n_tokens - 1
    const { query, key } = from ?? { query: last, key: last }
    const target = {
      ArrowLeft: { query, key: key - 1 },
      ArrowRight: { query, key: key + 1 },
      ArrowUp: { query: query - 1, key },
      ArrowDown: { query: query + 1, key },
    }[event.key]
    if (target) {
      event.preventDefault()
      const next = from ? target : { query, key }
      if (next.key >= 0 && next.key <= next.query && next.query <= last) this.point(next)
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault()
      this.chooseCell(this.over)
    }
  }
}
