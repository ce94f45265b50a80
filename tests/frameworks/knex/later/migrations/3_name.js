export async function up(knex) {
  await knex.schema.alterTable("users", (table) => table.string("name"));
  await knex("users").update({ name: knex.raw("'user ' || id") });
}

export const down = (knex) =>
  knex.schema.alterTable("users", (table) => table.dropColumn("name"));
