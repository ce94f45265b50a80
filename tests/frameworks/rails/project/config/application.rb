require "rails"
require "active_record/railtie"

class App < Rails::Application
  config.load_defaults 6.1
end
