/** A bound in messages and one in bytes: what comes first counts. One message always fits. */
export interface Bound {
  messages: number;
  bytes: number;
}
