class AddNameToUsers < ActiveRecord::Migration[6.1]
  def change
    add_column :users, :name, :string, null: false, default: ""
    up_only { execute "UPDATE users SET name = 'user ' || id" }
  end
end
