export const up = (knex) =>
  knex.schema.createTable("posts", (table) => {
    table.increments("id");
    table.integer("user_id").notNullable().references("users.id");
    table.string("title").notNullable();
  });

export const down = (knex) => knex.schema.dropTable("posts");
