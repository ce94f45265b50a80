ALTER TABLE `users` ADD `name` text DEFAULT '' NOT NULL;
--> statement-breakpoint
UPDATE `users` SET `name` = 'user ' || `id`;
