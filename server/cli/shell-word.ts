/** As a shell takes it, in quotes where that is needed. */
export function shellWord(text: string): string {
  // A tilde means a home at the beginning, and to bash after what looks like an assignment.
  return /^(?!~|.*[=:]~)[\w@%+=:,./~-]+$/.test(text) ? text : quoted(text);
}

/** As a shell takes it, in quotes. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
