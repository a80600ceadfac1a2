/** The types of @asyncapi/parser name it, and it brings none. */
declare module "node-fetch";
