// What the components' scripts share; `assets.script` puts it in front of each.

// Who draws in a place of the page: made by `Kind` when something is first drawn there; and what takes it away again.
function mounted(instances, place, Kind) {
  let one = instances.get(place)
  if (!one) {
    one = new Kind(place)
    instances.set(place, one)
  }
  const leave = () => {
    one.remove()
    instances.delete(place)
  }
  return { one, leave }
}

const asBytes = data => (data instanceof Uint8Array ? data : new Uint8Array(data ?? []))

function checkMagic(bytes, wanted) {
  const magic = String.fromCharCode(...bytes.subarray(0, 4))
  if (magic !== wanted) throw new Error(`unknown payload "${magic}", not "${wanted}"`)
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1
  return n
})

function crc32(bytes) {
  let crc = 0xffffffff
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8)
  return ((crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0")
}

// Text is only ever set as text, never as HTML: it comes from readers and models.
function part(tag, className, text) {
  const made = document.createElement(tag)
  if (className) made.className = className
  if (text !== undefined) made.textContent = text
  return made
}
