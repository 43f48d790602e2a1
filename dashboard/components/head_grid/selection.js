// Tells the grid of the same page which head and cell the page shows, and in what order the heads stand. It is apart from the grid's payload, so that a
// selection sends a few bytes.

const selections = (window[Symbol.for("head_grid.selections")] ??= new Map())

export default function ({ data }) {
  selections.set(data.grid, data)
  document.dispatchEvent(new CustomEvent("head_grid.selection", { detail: data.grid }))
  return () => {
    // What came after this may be there already.
    if (selections.get(data.grid) === data) selections.delete(data.grid)
  }
}
