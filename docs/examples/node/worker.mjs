// The pool's worker: holds as many MiB as a task asks for, and says how many bytes that were.

const MIB = 1 << 20;

process.on("message", ({ mib }) => {
  const held = [];
  // Buffers are outside of V8's heap: it is the kernel that ends this, not --max-old-space-size.
  for (let n = 0; n < mib; n += 1) held.push(Buffer.alloc(MIB, 1));
  process.send(held.length * MIB);
});
