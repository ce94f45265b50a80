export const up = (knex) =>
  knex.schema.createTable("users", (table) => {
    table.increments("id");
    table.string("email").notNullable().unique();
  });

export const down = (knex) => knex.schema.dropTable("users");
