// Hands the cells of some layers to the grid of the same page. They are apart from the grid's frame, and from each
// other, so that the first layers are drawn before the last are computed and nothing is sent twice.

const chunks = (window[Symbol.for("head_grid.chunks")] ??= new Set())
const held = new WeakMap()

export default function ({ data, parentElement }) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data)
  chunks.delete(held.get(parentElement))
  held.set(parentElement, bytes)
  chunks.add(bytes)
  document.dispatchEvent(new CustomEvent("head_grid.cells", { detail: bytes }))
  return () => chunks.delete(held.get(parentElement))
}
