export default {
  client: "better-sqlite3",
  connection: { filename: process.env.DATABASE },
  useNullAsDefault: true,
};
