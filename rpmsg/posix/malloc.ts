import { loadedLibc } from "./libc.ts";

/**
 * Gives memory back to the system that was freed, but that malloc keeps: glibc does that by itself only at the end of its
 * heap, and a single small block that is in use there keeps everything before it (malloc_trim(3)). All threads that
 * allocate wait meanwhile: for some 10 ms where 30 MiB are to be given back, 2 ms where nothing is.
 *
 * @returns whether it was done: not with another C library (musl has nothing to trim), nor before the C library is loaded
 */
export function trimMalloc(library = loadedLibc()): boolean {
  if (library?.malloc_trim === undefined) return false;
  library.malloc_trim(0);
  return true;
}
